"""A picture of everything that is being sampled, for ComfyUI's previews.

ComfyUI's previewer turns the first stream of a latent into a picture by a matrix. Here each stream becomes a picture by
a linear map of its own, which is fitted to what the autoencoder makes of a few test pictures and sounds: that is next
to free, where decoding a latent can take longer than a step. A small image autoencoder is used itself. Texts have no
linear map and are decoded, now and then.
"""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Collection, Sequence
from functools import cached_property

import comfy.cli_args
import comfy.model_management as mm
import comfy.utils
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from ..codi_backend.autoencoders import LogMel, resample
from ..codi_backend.config import CoDiConfig, MelConfig
from ..codi_backend.data.images import render_image
from ..codi_backend.data.sounds import render_sound
from ..codi_backend.data.world import COLOURS, SAMPLE_RATE, SHAPES, START_RANGE, TEMPI, Scene, make_scene
from .streams import modality_of, scale_factor

# Key of the `Autoencoders` among a MODEL's attachments.
KEY = "codi_autoencoders"
# Bytes of an image autoencoder that is used itself.
SMALL = 16e6
# Pixels.
SIDE, SOUND_HEIGHT, LINE_HEIGHT = 256, 96, 20
LINE_LENGTH = SIDE // 7  # letters
TEXT_TOKENS = 20
# Decoding texts may take this share of the time.
TEXT_SHARE = 0.05
LOUD = 2.5  # the log-mel value that is drawn brightest


class Autoencoders:
    """The autoencoders that belong to a MODEL, None where its checkpoint lacks one, and their linear maps."""

    def __init__(self, vae=None, audio_vae=None, text_vae=None):
        self.vae, self.audio_vae, self.text_vae = vae, audio_vae, text_vae

    def attach(self, model) -> None:
        """Let the previews of a MODEL use these."""
        model.set_attachments(KEY, self)

    def prepare(self, names: Collection[str]) -> None:
        """Read and fit now what streams will need; loads autoencoders."""
        if self.vae is not None and {"image", "video"} & set(names) and not self._draws_itself:
            _ = self.colours
        if self.audio_vae is not None and "audio" in names:
            _ = self.loudness

    def pictures(self, latents: Tensor) -> Tensor:
        """Image latents ``[B, C, h, w]`` -> colours in 0..1, at about any size: ``[B, 3, H, W]``."""
        if self.vae is None:
            return _grey(latents).expand(-1, 3, -1, -1)
        if not self._draws_itself:
            return _mapped(latents, self.colours).clamp(0, 1)
        weight = next(self.vae.first_stage_model.parameters())  # where it is: moving things is for the memory manager
        return (self.vae.first_stage_model.decode(latents.to(weight)).float().cpu() / 2 + 0.5).clamp(0, 1)

    def spectrogram(self, latents: Tensor) -> Tensor:
        """Audio latents ``[B, C, T, F]`` -> loudness in 0..1, at about any size: ``[B, 1, time, bands]``."""
        if self.audio_vae is None:
            return _grey(latents)
        patches = _mapped(latents, self.loudness).clamp(0, 1)
        return F.pixel_shuffle(patches, math.isqrt(patches.shape[1]))

    @cached_property
    def _draws_itself(self) -> bool:
        return mm.module_size(self.vae.first_stage_model) < SMALL

    @cached_property
    def colours(self) -> Tensor:
        """Image latents to colours in 0..1: ``[channels + 1, 3]``, the last row being a constant."""
        pixels = torch.from_numpy(np.stack([render_image(scene) for scene in _scenes(24)]))
        latents = self.vae.encode(pixels)
        return _fit(latents, F.avg_pool2d(pixels.movedim(-1, 1), pixels.shape[2] // latents.shape[3]))

    @cached_property
    def loudness(self) -> Tensor:
        """Audio latents to the loudness, 0..1, of the patch of a log-mel that each covers: ``[channels + 1, n]``."""
        config, rate = self.audio_vae.config, self.audio_vae.sample_rate
        scenes = torch.from_numpy(np.concatenate([render_sound(scene) for scene in _scenes(8)]))
        sounds = resample(scenes, SAMPLE_RATE, rate).unfold(0, *[round(config.seconds * rate)] * 2)[:, None]
        # As the published autoencoder's own processing would make them.
        sounds = sounds - sounds.mean(-1, keepdim=True)
        sounds = 0.5 * sounds / sounds.abs().amax(-1, keepdim=True)
        latents = self.audio_vae.encode(sounds, rate)
        loudness = _loudness(LogMel(config.mel)(sounds), config.mel)
        return _fit(latents, F.pixel_unshuffle(loudness, loudness.shape[2] // latents.shape[2]))


def _scenes(count: int) -> list[Scene]:
    """Scenes with all colours and shapes."""
    colours, shapes = list(COLOURS), list(SHAPES)
    return [
        make_scene(colours[i % 6], shapes[(i + i // 6) % 6], 1 + i % 4, list(TEMPI)[i % 2], sum(START_RANGE) / 2, i)
        for i in range(count)
    ]


def _fit(latents: Tensor, values: Tensor) -> Tensor:
    """Least squares: ``[B, C, H, W]`` to ``[B, N, H, W]`` at every position."""
    inputs, outputs = (t.movedim(1, -1).flatten(0, -2).float().cpu() for t in (latents, values))
    return torch.linalg.lstsq(F.pad(inputs, (0, 1), value=1.0), outputs).solution


def _mapped(latent: Tensor, weights: Tensor) -> Tensor:
    """``[B, C, H, W]`` by a map of `_fit` -> ``[B, N, H, W]``."""
    return (F.pad(latent.movedim(1, -1), (0, 1), value=1.0) @ weights).movedim(-1, 1)


def _loudness(log_mel: Tensor, config: MelConfig) -> Tensor:
    low = math.log(config.floor)
    return ((log_mel - low) / (LOUD - low)).clamp(0, 1)


class _TextSoFar:
    """The text of a latent, decoded again whenever the time that has passed since allows it."""

    def __init__(self, patcher):
        self.patcher = patcher
        self.text = ""
        self.spent, self.begun = 0.0, time.monotonic()

    def update(self, latent: Tensor) -> None:
        """`latent`: ``[1, D, 1, 1]``, unscaled."""
        begun = time.monotonic()
        patcher = self.patcher
        # Beside a GPU that has no room for it, the decoder would take seconds.
        if self.spent > TEXT_SHARE * (begun - self.begun) or patcher.current_loaded_device() != patcher.load_device:
            return
        latent = latent.flatten(1).to(patcher.load_device)
        self.text = patcher.model.decode(latent, greedy=True, max_tokens=TEXT_TOKENS)[0]
        self.spent += time.monotonic() - begun


class _Artist:
    """Draws what a run has of its streams, for each ``{name: [1, ...]}``, unscaled."""

    def __init__(self, autoencoders: Autoencoders, names: Collection[str] = ()):
        self.autoencoders = autoencoders
        self.text = None
        autoencoders.prepare(names)
        if autoencoders.text_vae is not None and "text" in names:
            try:
                mm.load_models_gpu([autoencoders.text_vae.patcher])
                self.text = _TextSoFar(autoencoders.text_vae.patcher)
            except ValueError:  # It has no vocabularies, as whoever decodes the text will be told.
                pass

    def draw(self, streams: dict[str, Tensor]) -> Tensor:
        """``[3, H, W]`` in 0..1: image and video in a row, below them the sound and the text."""
        top = [self.image(streams["image"])] if "image" in streams else []
        if "video" in streams:
            top.append(self.video(streams["video"]))
        rows = [torch.cat(top, 2)] if top else []
        width = rows[0].shape[2] if rows else SIDE
        if "audio" in streams:
            rows.append(self.audio(streams["audio"], width))
        if "text" in streams and self.text is not None:
            self.text.update(streams["text"])
            rows.append(_written(self.text.text, width))
        return torch.cat(rows or [torch.zeros(3, SIDE, SIDE)], 1)

    def image(self, latent: Tensor) -> Tensor:
        return _resized(self.autoencoders.pictures(latent), SIDE)[0]

    def video(self, latent: Tensor) -> Tensor:
        """Four frames, evenly spread, in two rows."""
        chosen = [i * (latent.shape[2] - 1) // 3 for i in range(4)]
        frames = _resized(self.autoencoders.pictures(latent[0, :, chosen].movedim(1, 0)), SIDE // 2)
        return torch.cat([torch.cat([*frames[:2]], 2), torch.cat([*frames[2:]], 2)], 1)

    def audio(self, latent: Tensor, width: int) -> Tensor:
        """Time to the right, pitch upwards."""
        bands = self.autoencoders.spectrogram(latent).transpose(2, 3).flip(2)
        return _heat(_resized(bands, SOUND_HEIGHT, width)[0])


def _grey(latents: Tensor) -> Tensor:
    """What is left to show of latents without their autoencoder."""
    return latents.mean(1, keepdim=True).tanh() / 2 + 0.5


def _heat(level: Tensor) -> Tensor:
    """``[1, H, W]`` in 0..1 -> black, red, yellow, white: ``[3, H, W]``."""
    return (3 * level - torch.arange(3.0)[:, None, None]).clamp(0, 1)


def _resized(pictures: Tensor, height: int, width: int | None = None) -> Tensor:
    width = width or max(1, height * pictures.shape[3] // pictures.shape[2])
    return F.interpolate(pictures, (height, width), mode="bilinear")


def _written(text: str, width: int) -> Tensor:
    lines = textwrap.wrap(text, LINE_LENGTH * width // SIDE) or [""]
    page = Image.new("RGB", (width, LINE_HEIGHT * len(lines) + 4), "white")
    ImageDraw.Draw(page).multiline_text((4, 2), "\n".join(lines), "black", ImageFont.load_default())
    return torch.from_numpy(np.array(page)).permute(2, 0, 1) / 255


class Previews:
    """Draws the streams of one model, whichever sampler works on them."""

    def __init__(self, config: CoDiConfig):
        self.config = config
        self._artist = _Artist(Autoencoders())
        self._streams: dict[str, Tensor] = {}

    def around_callback(self, callback, names: Sequence[str], shapes: Sequence[Sequence[int]], model):
        """A sampler's callback that knows all streams while ComfyUI's `callback` has the first of them drawn.

        To be called before the diffuser is loaded, since it may load autoencoders.
        """
        if comfy.cli_args.args.preview_method == comfy.cli_args.LatentPreviewMethod.NoPreviews:
            return callback
        self._artist = _Artist(model.get_attachment(KEY) or Autoencoders(), names)

        def with_streams(step, x0, x, total_steps):
            streams = comfy.utils.unpack_latents(x0[:1], shapes)
            self._streams = dict(zip(names, streams))
            try:
                return callback(step, x0, x, total_steps)
            finally:
                self._streams = {}

        return with_streams

    def draw(self, x0: Tensor) -> Tensor:
        """ComfyUI's previewer asks for a picture ``[1, 3, H, W]`` in -1..1 of the first stream, and gets one of all."""
        streams = self._streams or {modality_of(x0.shape, self.config).name: x0[:1]}
        unscaled = {name: z.float().cpu() / scale_factor(name, self.config) for name, z in streams.items()}
        return self._artist.draw(unscaled)[None] * 2 - 1
