"""The prompt encoders under ComfyUI's memory manager."""

from __future__ import annotations

from itertools import repeat

import comfy.model_management as mm
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...codi_backend.checkpoints.quantisation import quantised_keys
from ...codi_backend.checkpoints.tensor_file import convert
from ...codi_backend.conditioning.context import Context
from ...codi_backend.conditioning.encode import image_context, text_context
from ...codi_backend.conditioning.text_hints import text_hints
from ...codi_backend.config import VisionEncoderConfig
from ...codi_backend.models.encoders import AudioEncoder, ImageEncoder, TextEncoder
from ...codi_backend.models.encoders.audio import log_mel
from ...codi_backend.models.encoders.preprocess import clip_input, clip_unconditional, thinned
from .patchers import Managed, finished, in_batches
from .quantised import layouts_of, mixed_precision

# Estimates of memory below count the peak of the largest layer, as measured for the small model and the published one.

# Batch sizes of encoding; videos and audio need the most memory.
TEXT_BATCH, IMAGE_BATCH, VIDEO_BATCH, AUDIO_BATCH = 64, 16, 1, 4
# Longer videos are thinned to this; the published encoder has no limit of its own.
MAX_FRAMES = 32


class _Embedding(comfy.ops.manual_cast.Embedding):
    def forward(self, *args, **kwargs):
        # Ids have no precision to cast to; a table in half precision would make all later layers use it.
        return super().forward(*args, **kwargs | {"out_dtype": torch.float32})


class _Operations(comfy.ops.manual_cast):
    """Layers that cast their stored weights to the precision of their inputs."""

    Embedding = _Embedding


class _ManagedEncoder(Managed):
    kind: type[nn.Module]

    def _build(self) -> ModelPatcher:
        device, offload_device = mm.text_encoder_device(), mm.text_encoder_offload_device()
        # Half precision brings no gain on a CPU.
        dtype = torch.float32 if mm.is_device_cpu(device) else mm.text_encoder_dtype(device)
        state = self._weights.read(quantised=True)
        quantised = {key: state.pop(key) for key in quantised_keys(state)}
        operations = mixed_precision(torch.float32, _Embedding) if layouts_of(quantised) else _Operations
        with torch.device("meta"):
            encoder = self.kind(self.config, operations=operations)
        # Norms and biases are small, and some of their values exceed the range of 8 bits.
        matrices = {key: value for key, value in state.items() if value.ndim > 1}
        vectors = {key: value for key, value in state.items() if value.ndim <= 1}
        convert(matrices, dtype)
        convert(vectors, torch.float16 if dtype.itemsize == 1 else dtype)
        encoder.load_state_dict(matrices | vectors | quantised, assign=True)
        return ModelPatcher(encoder.eval(), load_device=device, offload_device=offload_device)


class ManagedTextEncoder(_ManagedEncoder):
    """The text encoder: texts to prompt embeddings, or to all tokens."""

    kind = TextEncoder

    def encode(self, texts: list[str]) -> Tensor:
        """Texts -> ``[B, 1, D]``."""
        return torch.cat([self._embed(some) for some in in_batches(texts, TEXT_BATCH)])

    def all_tokens(self, texts: list[str]) -> Tensor:
        """Texts -> ``[B, L, D]``, see `TextEncoder.all_tokens`."""
        return torch.cat([self._embed(some, whole=True) for some in in_batches(texts, TEXT_BATCH)])

    def _embed(self, texts: list[str], whole: bool = False) -> Tensor:
        tokens = self.patcher.model.tokenize(texts, fill=whole)
        width = self.config.width
        values = tokens.numel() * (6 * width + 3 * (self.config.mlp or 4 * width))
        encoder = self._load(values)
        return finished((encoder.all_tokens if whole else encoder)(tokens.to(self.patcher.load_device)))


class ManagedImageEncoder(_ManagedEncoder):
    """The vision encoder: images and videos to prompt embeddings, or images to all tokens."""

    kind = ImageEncoder
    config: VisionEncoderConfig

    def encode(self, pixels: Tensor) -> Tensor:
        """Images ``[B, 3, H, W]`` in 0..1 -> ``[B, 1, D]``. The centre squares are encoded."""
        batches = in_batches(pixels, IMAGE_BATCH)
        return torch.cat([self._embed(clip_input(some, self.config, False)) for some in batches])

    def encode_video(self, frames: Tensor) -> Tensor:
        """Videos ``[B, 3, T, H, W]`` in 0..1 -> ``[B, 1, D]``. The centre squares are encoded."""
        batches = in_batches(thinned(frames, self.config.frames or MAX_FRAMES), VIDEO_BATCH)
        return torch.cat([self._embed(clip_input(some, self.config, True)) for some in batches])

    def unconditional(self, frames: int | None = None) -> Tensor:
        """The embedding of a mid-grey image, or of a video of mid-grey frames: ``[1, 1, D]``."""
        if frames is not None:
            frames = min(frames, self.config.frames or MAX_FRAMES)
        return self._embed(clip_unconditional(self.config, frames))

    def all_tokens(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Preprocessed images ``[B, 3, S, S]`` -> ``[B, L, D]``, see `ImageEncoder.all_tokens`."""
        masks = repeat(None) if mask is None else in_batches(mask, IMAGE_BATCH)
        return torch.cat([self._tokens(*some) for some in zip(in_batches(pixels, IMAGE_BATCH), masks)])

    def _tokens(self, pixels: Tensor, mask: Tensor | None) -> Tensor:
        return finished(self._loaded(pixels).all_tokens(pixels.to(self.patcher.load_device), mask))

    def _embed(self, pixels: Tensor) -> Tensor:
        return finished(self._loaded(pixels)(pixels.to(self.patcher.load_device)))

    def _loaded(self, pixels: Tensor) -> ImageEncoder:
        """The encoder, with memory to encode so many pixels."""
        config = self.config
        tokens = (config.image_size // config.patch) ** 2 + 1
        feed_forward, temporal = 3 * config.width + 3 * config.mlp, 21 * config.width
        per_token = max(feed_forward, temporal) if pixels.ndim == 5 else feed_forward
        return self._load(pixels.numel() + pixels.numel() / (3 * config.image_size**2) * tokens * per_token)


class ManagedAudioEncoder(_ManagedEncoder):
    """The audio encoder: audio to prompt embeddings."""

    kind = AudioEncoder

    def encode(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Audio ``[B, C, N]`` in -1..1 -> ``[B, 1, D]``. The channels are averaged."""
        batches = in_batches(waveform, AUDIO_BATCH)
        return torch.cat([self._embed(some.mean(1, keepdim=True), sample_rate) for some in batches])

    def unconditional(self) -> Tensor:
        """The embedding of silence: ``[1, 1, D]``."""
        return self._embed(torch.zeros(1, 1, 1), self.config.mel.sample_rate)

    def _embed(self, waveform: Tensor, sample_rate: int) -> Tensor:
        config = self.config
        waveform = self.patcher.model.prepare(waveform, sample_rate)
        spectrogram = 6 * waveform.numel() / config.mel.hop * (config.mel.n_fft // 2 + 1)
        tokens = (config.image_size // config.patch) ** 2
        # The first stage is the largest; the batch shares its attention biases.
        first_stage = tokens * (13 * len(waveform) * config.width + config.heads[0] * config.window**2)
        encoder = self._load(waveform.numel() + max(spectrogram, first_stage))
        return finished(encoder.embed(log_mel(waveform.to(self.patcher.load_device), config.mel)))


class PromptEncoders:
    """The prompt encoders of a checkpoint; None for each that it lacks.

    Attributes
    ----------
    text : ManagedTextEncoder or None
    image : ManagedImageEncoder or None
        For images and videos.
    audio : ManagedAudioEncoder or None
    words : tuple of str or None
        Words of the captions in a small model's training, see `known_words`.
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
        """The encoder "text", "image" or "audio". `ValueError` if the checkpoint lacks it."""
        encoder = getattr(self, name)
        if encoder is None:
            raise ValueError(
                f"prompt_encoders: the loaded checkpoint has no {name} prompt encoder; "
                "load one that has, such as the built-in model."
            )
        return encoder

    def prompt(self, kind: str, content, sample_rate: int | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings ``[B, 1, D]`` and the unconditional embedding ``[1, 1, D]``.

        Parameters
        ----------
        kind : {"text", "image", "video", "audio"}
        content : list of str, or Tensor
            The input of that encoder. The unconditional embedding is that of the empty text, mid-grey or silence.
        sample_rate : int
            Of audio, in Hz.

        Raises
        ------
        ValueError
            If the checkpoint lacks the encoder, or the content cannot be encoded.
        """
        if kind == "text":
            embeddings = self.need("text").encode([*content, ""])
            return embeddings[:-1], embeddings[-1:]
        if kind == "audio":
            encoder = self.need("audio")
            return encoder.encode(content, sample_rate), encoder.unconditional()
        encoder = self.need("image")
        if kind == "video":
            return encoder.encode_video(content), encoder.unconditional(content.shape[2])
        return encoder.encode(content), encoder.unconditional()

    def text_hints(self, texts: list[str]) -> list[str]:
        """Hints about text prompts, see `codi_backend`. `ValueError` if the checkpoint lacks the encoder."""
        return text_hints(texts, self.need("text").config, self.words)

    def text_context(self, texts: list[str]) -> Context:
        """A context of all tokens of each text. `ValueError` if the checkpoint lacks the encoder."""
        return text_context(self.need("text").all_tokens, texts)

    def image_context(self, pixels: Tensor, *options) -> Context:
        """A context of all tokens of each image ``[B, 3, H, W]`` in 0..1; `options` are those of `image_context`.

        `ValueError` if the checkpoint lacks the encoder, or an option does not fit.
        """
        encoder = self.need("image")
        return image_context(encoder.all_tokens, encoder.config.image_size, pixels, *options)
