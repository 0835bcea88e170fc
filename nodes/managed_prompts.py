"""The prompt encoders, in the care of ComfyUI's memory manager."""

from __future__ import annotations

from itertools import repeat

import comfy.model_management as mm
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..codi_backend.config import VisionEncoderConfig
from ..codi_backend.context_encoding import image_context, text_context
from ..codi_backend.contexts import Context
from ..codi_backend.prompts import AudioEncoder, ImageEncoder, TextEncoder
from ..codi_backend.prompts.audio import log_mel
from ..codi_backend.prompts.hints import text_hints
from ..codi_backend.prompts.preprocess import clip_input, clip_nothing, thinned
from ..codi_backend.tensor_files import convert
from .managed import Managed, finished, in_batches

# Estimates of memory below count what lives at once at the peak in the layer that needs most, as measured for the small
# model and the published one.

# How many contents are encoded at once; what each of them needs is estimated, videos and sounds are large.
TEXTS, IMAGES, VIDEOS, SOUNDS = 64, 16, 1, 4
# Of longer videos, the published encoder would look at every frame.
MAX_FRAMES = 32


class _Operations(comfy.ops.manual_cast):
    """Layers that bring their weights to what they are given, however these are stored."""

    class Embedding(comfy.ops.manual_cast.Embedding):
        def forward(self, *args, **kwargs):
            # Ids say nothing about precision, and a table in half precision would drag all that follows along.
            return super().forward(*args, **kwargs | {"out_dtype": torch.float32})


class _ManagedEncoder(Managed):
    kind: type[nn.Module]

    def _build(self) -> ModelPatcher:
        device, offload_device = mm.text_encoder_device(), mm.text_encoder_offload_device()
        # A CPU gains nothing from half precision.
        dtype = torch.float32 if mm.is_device_cpu(device) else mm.text_encoder_dtype(device)
        with torch.device("meta"):
            encoder = self.kind(self.config, operations=_Operations)
        state = self._weights.read()
        # Norms and biases are few, and among them are numbers that 8 bits cannot hold.
        matrices = {key: value for key, value in state.items() if value.ndim > 1}
        vectors = {key: value for key, value in state.items() if value.ndim <= 1}
        convert(matrices, dtype)
        convert(vectors, torch.float16 if dtype.itemsize == 1 else dtype)
        encoder.load_state_dict(matrices | vectors, assign=True)
        return ModelPatcher(encoder.eval(), load_device=device, offload_device=offload_device)


class ManagedTextEncoder(_ManagedEncoder):
    """Texts to prompt embeddings, or to all tokens."""

    kind = TextEncoder

    def encode(self, texts: list[str]) -> Tensor:
        """Texts -> ``[B, 1, D]``."""
        return torch.cat([self._embed(some) for some in in_batches(texts, TEXTS)])

    def all_tokens(self, texts: list[str]) -> Tensor:
        """Texts -> ``[B, L, D]``, see `TextEncoder.all_tokens`."""
        return torch.cat([self._embed(some, whole=True) for some in in_batches(texts, TEXTS)])

    def _embed(self, texts: list[str], whole: bool = False) -> Tensor:
        tokens = self.patcher.model.tokenize(texts, fill=whole)
        width = self.config.width
        values = tokens.numel() * (6 * width + 3 * (self.config.mlp or 4 * width))
        encoder = self._load(values)
        return finished((encoder.all_tokens if whole else encoder)(tokens.to(self.patcher.load_device)))


class ManagedImageEncoder(_ManagedEncoder):
    """Images and videos to prompt embeddings; images to all tokens, too."""

    kind = ImageEncoder
    config: VisionEncoderConfig

    def encode(self, pixels: Tensor) -> Tensor:
        """Images ``[B, 3, H, W]`` in 0..1, of which the centre square is looked at -> ``[B, 1, D]``."""
        batches = in_batches(pixels, IMAGES)
        return torch.cat([self._embed(clip_input(some, self.config, False)) for some in batches])

    def encode_video(self, frames: Tensor) -> Tensor:
        """Videos ``[B, 3, T, H, W]`` in 0..1, of which the centre squares are looked at -> ``[B, 1, D]``."""
        batches = in_batches(thinned(frames, self.config.frames or MAX_FRAMES), VIDEOS)
        return torch.cat([self._embed(clip_input(some, self.config, True)) for some in batches])

    def nothing(self, frames: int | None = None) -> Tensor:
        """The embedding of a mid-grey image, or of a video of mid-grey frames: ``[1, 1, D]``."""
        if frames is not None:
            frames = min(frames, self.config.frames or MAX_FRAMES)
        return self._embed(clip_nothing(self.config, frames))

    def all_tokens(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Images ``[B, 3, S, S]`` as the encoder takes them -> ``[B, L, D]``, see `ImageEncoder.all_tokens`."""
        masks = repeat(None) if mask is None else in_batches(mask, IMAGES)
        return torch.cat([self._tokens(*some) for some in zip(in_batches(pixels, IMAGES), masks)])

    def _tokens(self, pixels: Tensor, mask: Tensor | None) -> Tensor:
        return finished(self._loaded(pixels).all_tokens(pixels.to(self.patcher.load_device), mask))

    def _embed(self, pixels: Tensor) -> Tensor:
        return finished(self._loaded(pixels)(pixels.to(self.patcher.load_device)))

    def _loaded(self, pixels: Tensor) -> ImageEncoder:
        """The encoder, with room to encode so many pixels."""
        look = self.config
        tokens = (look.image_size // look.patch) ** 2 + 1
        feed_forward, temporal = 3 * look.width + 3 * look.mlp, 21 * look.width
        per_token = max(feed_forward, temporal) if pixels.ndim == 5 else feed_forward
        return self._load(pixels.numel() + pixels.numel() / (3 * look.image_size**2) * tokens * per_token)


class ManagedAudioEncoder(_ManagedEncoder):
    """Sounds to prompt embeddings."""

    kind = AudioEncoder

    def encode(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Sounds ``[B, C, N]`` in -1..1, of which the channels are averaged -> ``[B, 1, D]``."""
        batches = in_batches(waveform, SOUNDS)
        return torch.cat([self._embed(some.mean(1, keepdim=True), sample_rate) for some in batches])

    def nothing(self) -> Tensor:
        """The embedding of silence: ``[1, 1, D]``."""
        return self._embed(torch.zeros(1, 1, 1), self.config.mel.sample_rate)

    def _embed(self, waveform: Tensor, sample_rate: int) -> Tensor:
        config = self.config
        waveform = self.patcher.model.heard(waveform, sample_rate)
        spectrogram = 6 * waveform.numel() / config.mel.hop * (config.mel.n_fft // 2 + 1)
        tokens = (config.image_size // config.patch) ** 2
        # The first stage is the largest; its biases of attention are shared by the batch.
        first_stage = tokens * (13 * len(waveform) * config.width + config.heads[0] * config.window**2)
        encoder = self._load(waveform.numel() + max(spectrogram, first_stage))
        return finished(encoder.embed(log_mel(waveform.to(self.patcher.load_device), config.mel)))


class PromptEncoders:
    """The prompt encoders of a checkpoint. One that it lacks is None.

    Attributes
    ----------
    text : ManagedTextEncoder or None
    image : ManagedImageEncoder or None
        Of images and videos.
    audio : ManagedAudioEncoder or None
    words : tuple of str or None
        Words of the captions that a small model was trained on, see `known_words`.
    """

    def __init__(
        self,
        text: ManagedTextEncoder | None = None,
        image: ManagedImageEncoder | None = None,
        audio: ManagedAudioEncoder | None = None,
        words: tuple[str, ...] | None = None,
    ):
        self.text, self.image, self.audio, self.words = text, image, audio, words

    def need(self, name: str) -> Managed:
        """The encoder "text", "image" or "audio". `ValueError` when the checkpoint lacks it."""
        encoder = getattr(self, name)
        if encoder is None:
            raise ValueError(
                f"prompt_encoders: the loaded checkpoint has no {name} prompt encoder; "
                "load one that has, such as the built-in model."
            )
        return encoder

    def prompt(self, kind: str, content, sample_rate: int | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings ``[B, 1, D]`` and what they have for an unconditional twin, ``[1, 1, D]``.

        Parameters
        ----------
        kind : {"text", "image", "video", "audio"}
        content : list of str, or Tensor
            As the encoder of that kind takes it. The twin is the embedding of the empty text, of mid-grey, of silence.
        sample_rate : int
            Of sounds, in Hz.

        Raises
        ------
        ValueError
            When the checkpoint lacks the encoder, or the content cannot be encoded.
        """
        if kind == "text":
            embeddings = self.need("text").encode([*content, ""])
            return embeddings[:-1], embeddings[-1:]
        if kind == "audio":
            encoder = self.need("audio")
            return encoder.encode(content, sample_rate), encoder.nothing()
        encoder = self.need("image")
        if kind == "video":
            return encoder.encode_video(content), encoder.nothing(content.shape[2])
        return encoder.encode(content), encoder.nothing()

    def text_hints(self, texts: list[str]) -> list[str]:
        """What the user should know about prompts, see `codi_backend`'s; `ValueError` when the encoder is lacking."""
        return text_hints(texts, self.need("text").config, self.words)

    def text_context(self, texts: list[str]) -> Context:
        """A context of all tokens of each text. `ValueError` when the checkpoint lacks the encoder."""
        return text_context(self.need("text").all_tokens, texts)

    def image_context(self, pixels: Tensor, *options) -> Context:
        """A context of all tokens of each image ``[B, 3, H, W]`` in 0..1; `options` are those of `image_context`.

        `ValueError` when the checkpoint lacks the encoder, or an option does not fit.
        """
        encoder = self.need("image")
        return image_context(encoder.all_tokens, encoder.config.image_size, pixels, *options)
