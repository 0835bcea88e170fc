"""An image of all streams during sampling, for ComfyUI's previews.

ComfyUI's previewer maps the first stream of a latent to an image by a matrix. Here each stream has a linear map of its
own, fitted to the autoencoder's latents of a few test images and audio signals. The map costs almost nothing, where
decoding can take longer than a step. A small image autoencoder decodes directly. Texts have no linear map and are
decoded from time to time.
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

from ...codi_backend.config import CoDiConfig, MelConfig
from ...codi_backend.data.audio import render_audio
from ...codi_backend.data.images import render_image
from ...codi_backend.data.world import COLOURS, SAMPLE_RATE, SHAPES, START_RANGE, TEMPI, Scene, make_scene
from ...codi_backend.modalities import scale_factor
from ...codi_backend.models.autoencoders import LogMel, resample
from .latent_packing import modality_of

# Key of the `Autoencoders` among a MODEL's attachments.
KEY = "codi_autoencoders"
# The largest image autoencoder that decodes directly, in bytes.
MAX_DECODER_BYTES = 16e6
# Pixels.
SIDE, AUDIO_HEIGHT, LINE_HEIGHT = 256, 96, 20
LINE_LENGTH = SIDE // 7  # letters
TEXT_TOKENS = 20
# The share of the time that decoding texts may take.
TEXT_SHARE = 0.05
MAX_LOG_MEL = 2.5  # the log-mel value of the brightest colour


class Autoencoders:
    """The autoencoders of a MODEL (None if its checkpoint lacks one) and their linear maps."""

    def __init__(self, vae=None, audio_vae=None, text_vae=None):
        self.vae, self.audio_vae, self.text_vae = vae, audio_vae, text_vae

    def attach(self, model) -> None:
        """Make these the autoencoders of a MODEL's previews."""
        model.set_attachments(KEY, self)

    def prepare(self, names: Collection[str]) -> None:
        """Fit the linear maps that the streams need; loads autoencoders."""
        if self.vae is not None and {"image", "video"} & set(names) and not self._decodes_directly:
            _ = self.colours
        if self.audio_vae is not None and "audio" in names:
            _ = self.loudness

    def images(self, latents: Tensor) -> Tensor:
        """Image latents ``[B, C, h, w]`` -> images ``[B, 3, H, W]`` in 0..1, of any resolution."""
        if self.vae is None:
            return _grey(latents).expand(-1, 3, -1, -1)
        if not self._decodes_directly:
            return _mapped(latents, self.colours).clamp(0, 1)
        weight = next(self.vae.first_stage_model.parameters())  # on its device: only the memory manager moves it
        return (self.vae.first_stage_model.decode(latents.to(weight)).float().cpu() / 2 + 0.5).clamp(0, 1)

    def spectrogram(self, latents: Tensor) -> Tensor:
        """Audio latents ``[B, C, T, F]`` -> loudness ``[B, 1, time, bands]`` in 0..1, of any resolution."""
        if self.audio_vae is None:
            return _grey(latents)
        patches = _mapped(latents, self.loudness).clamp(0, 1)
        return F.pixel_shuffle(patches, math.isqrt(patches.shape[1]))

    @cached_property
    def _decodes_directly(self) -> bool:
        return mm.module_size(self.vae.first_stage_model) < MAX_DECODER_BYTES

    @cached_property
    def colours(self) -> Tensor:
        """The map of image latents to colours in 0..1: ``[channels + 1, 3]``, with the constant in the last row."""
        pixels = torch.from_numpy(np.stack([render_image(scene) for scene in _scenes(24)]))
        latents = self.vae.encode(pixels)
        return _fit(latents, F.avg_pool2d(pixels.movedim(-1, 1), pixels.shape[2] // latents.shape[3]))

    @cached_property
    def loudness(self) -> Tensor:
        """The map of audio latents to the loudness, 0..1, of their log-mel patches: ``[channels + 1, n]``."""
        config, rate = self.audio_vae.config, self.audio_vae.sample_rate
        scenes = torch.from_numpy(np.concatenate([render_audio(scene) for scene in _scenes(8)]))
        audio = resample(scenes, SAMPLE_RATE, rate).unfold(0, *[round(config.seconds * rate)] * 2)[:, None]
        # The normalization of the published autoencoder's processing.
        audio = audio - audio.mean(-1, keepdim=True)
        audio = 0.5 * audio / audio.abs().amax(-1, keepdim=True)
        latents = self.audio_vae.encode(audio, rate)
        loudness = _loudness(LogMel(config.mel)(audio), config.mel)
        return _fit(latents, F.pixel_unshuffle(loudness, loudness.shape[2] // latents.shape[2]))


def _scenes(count: int) -> list[Scene]:
    """Scenes with all colours and shapes."""
    colours, shapes = list(COLOURS), list(SHAPES)
    return [
        make_scene(colours[i % 6], shapes[(i + i // 6) % 6], 1 + i % 4, list(TEMPI)[i % 2], sum(START_RANGE) / 2, i)
        for i in range(count)
    ]


def _fit(latents: Tensor, values: Tensor) -> Tensor:
    """The least-squares map of ``[B, C, H, W]`` to ``[B, N, H, W]``, shared by all positions."""
    inputs, outputs = (t.movedim(1, -1).flatten(0, -2).float().cpu() for t in (latents, values))
    return torch.linalg.lstsq(F.pad(inputs, (0, 1), value=1.0), outputs).solution


def _mapped(latent: Tensor, weights: Tensor) -> Tensor:
    """Apply a map of `_fit`: ``[B, C, H, W]`` -> ``[B, N, H, W]``."""
    return (F.pad(latent.movedim(1, -1), (0, 1), value=1.0) @ weights).movedim(-1, 1)


def _loudness(log_mel: Tensor, config: MelConfig) -> Tensor:
    low = math.log(config.floor)
    return ((log_mel - low) / (MAX_LOG_MEL - low)).clamp(0, 1)


class _TextSoFar:
    """The text of a latent, decoded as often as `TEXT_SHARE` allows."""

    def __init__(self, patcher):
        self.patcher = patcher
        self.text = ""
        self.spent, self.started = 0.0, time.monotonic()

    def update(self, latent: Tensor) -> None:
        """`latent`: ``[1, D, 1, 1]``, unscaled."""
        start = time.monotonic()
        patcher = self.patcher
        # Offloaded from a full GPU, the decoder would take seconds.
        if self.spent > TEXT_SHARE * (start - self.started) or patcher.current_loaded_device() != patcher.load_device:
            return
        latent = latent.flatten(1).to(patcher.load_device)
        self.text = patcher.model.decode(latent, greedy=True, max_tokens=TEXT_TOKENS)[0]
        self.spent += time.monotonic() - start


class _Renderer:
    """Draws the streams of a run, ``{name: [1, ...]}``, unscaled."""

    def __init__(self, autoencoders: Autoencoders, names: Collection[str] = ()):
        self.autoencoders = autoencoders
        self.text = None
        autoencoders.prepare(names)
        if autoencoders.text_vae is not None and "text" in names:
            try:
                mm.load_models_gpu([autoencoders.text_vae.patcher])
                self.text = _TextSoFar(autoencoders.text_vae.patcher)
            except ValueError:  # Its vocabularies are missing, which CoDi Decode Text reports.
                pass

    def draw(self, streams: dict[str, Tensor]) -> Tensor:
        """``[3, H, W]`` in 0..1: image and video in a row, audio and text below."""
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
        return _resized(self.autoencoders.images(latent), SIDE)[0]

    def video(self, latent: Tensor) -> Tensor:
        """Four frames, evenly spread, in two rows."""
        chosen = [i * (latent.shape[2] - 1) // 3 for i in range(4)]
        frames = _resized(self.autoencoders.images(latent[0, :, chosen].movedim(1, 0)), SIDE // 2)
        return torch.cat([torch.cat([*frames[:2]], 2), torch.cat([*frames[2:]], 2)], 1)

    def audio(self, latent: Tensor, width: int) -> Tensor:
        """Time to the right, pitch upwards."""
        bands = self.autoencoders.spectrogram(latent).transpose(2, 3).flip(2)
        return _heat(_resized(bands, AUDIO_HEIGHT, width)[0])


def _grey(latents: Tensor) -> Tensor:
    """The grey image of latents without an autoencoder: the mean of their channels."""
    return latents.mean(1, keepdim=True).tanh() / 2 + 0.5


def _heat(level: Tensor) -> Tensor:
    """``[1, H, W]`` in 0..1 -> black, red, yellow, white: ``[3, H, W]``."""
    return (3 * level - torch.arange(3.0)[:, None, None]).clamp(0, 1)


def _resized(images: Tensor, height: int, width: int | None = None) -> Tensor:
    width = width or max(1, height * images.shape[3] // images.shape[2])
    return F.interpolate(images, (height, width), mode="bilinear")


def _written(text: str, width: int) -> Tensor:
    lines = textwrap.wrap(text, LINE_LENGTH * width // SIDE) or [""]
    page = Image.new("RGB", (width, LINE_HEIGHT * len(lines) + 4), "white")
    ImageDraw.Draw(page).multiline_text((4, 2), "\n".join(lines), "black", ImageFont.load_default())
    return torch.from_numpy(np.array(page)).permute(2, 0, 1) / 255


class Previews:
    """Draws the streams of one model during sampling, for all samplers."""

    def __init__(self, config: CoDiConfig):
        self.config = config
        self._renderer = _Renderer(Autoencoders())
        self._streams: dict[str, Tensor] = {}

    def around_callback(self, callback, names: Sequence[str], shapes: Sequence[Sequence[int]], model):
        """ComfyUI's sampling `callback`, wrapped to store all streams for `draw`.

        Call it before the diffuser is loaded, since it may load autoencoders.
        """
        if comfy.cli_args.args.preview_method == comfy.cli_args.LatentPreviewMethod.NoPreviews:
            return callback
        renderer = _Renderer(model.get_attachment(KEY) or Autoencoders(), names)

        def with_streams(step, x0, x, total_steps):
            streams = comfy.utils.unpack_latents(x0[:1], shapes)
            # Of this run: coupled guiders may run the same model for several streams at a time.
            self._renderer, self._streams = renderer, dict(zip(names, streams))
            try:
                return callback(step, x0, x, total_steps)
            finally:
                self._streams = {}

        return with_streams

    def draw(self, x0: Tensor) -> Tensor:
        """The image ``[1, 3, H, W]`` in -1..1 of all streams, in place of ComfyUI's preview of the first one."""
        streams = self._streams or {modality_of(x0.shape, self.config).name: x0[:1]}
        unscaled = {name: z.float().cpu() / scale_factor(self.config, name) for name, z in streams.items()}
        return self._renderer.draw(unscaled)[None] * 2 - 1
