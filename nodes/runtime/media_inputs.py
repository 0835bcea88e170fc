"""Checks and conversion of IMAGE, MASK, VIDEO and AUDIO inputs for the library.

A `ValueError` begins with the input's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...codi_backend.checks.inputs import as_mask, as_pixels, as_rate, as_samples

MIN_SECONDS = 0.01
# Grey, colour, and colour with transparency.
CHANNELS = (1, 3, 4)


def image_pixels(image: Any, name: str) -> Tensor:
    """An IMAGE ``[B, H, W, C]`` as RGB ``[B, 3, H, W]``. Grey is repeated, transparent pixels become white."""
    pixels = image_channels(image, name)
    colour = pixels[:, :3].expand(-1, 3, -1, -1)
    if pixels.shape[1] < 4:
        return colour
    return torch.lerp(torch.ones_like(colour), colour, pixels[:, 3:].clamp(0, 1))


def image_channels(image: Any, name: str) -> Tensor:
    """An IMAGE as ``[B, C, H, W]`` with its own 1, 3 or 4 channels."""
    _require(image, name, "an image")
    pixels = as_pixels(image, f"{name}: this")
    if pixels.ndim != 4 or pixels.shape[-1] not in CHANNELS:
        raise ValueError(
            f"{name}: this is of shape {list(pixels.shape)}; connect images [B, H, W, C] of 1, 3 or 4 channels."
        )
    if pixels.numel() == 0:
        raise ValueError(f"{name}: there is no image in this; connect at least one.")
    return pixels.movedim(-1, 1)


def mask_values(mask: Any, name: str) -> Tensor:
    """A MASK ``[H, W]``, ``[B, H, W]`` or ``[B, 1, H, W]`` as ``[B, H, W]``."""
    _require(mask, name, "a mask")
    values = as_mask(mask, f"{name}: this")
    shape = list(values.shape)
    if values.ndim == 4 and shape[1] == 1:
        values = values[:, 0]
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or values.numel() == 0:
        raise ValueError(f"{name}: this is of shape {shape}; connect a mask, [B, H, W].")
    return values


def video_pixels(video: Any, name: str = "video") -> Tensor:
    """A VIDEO, or an IMAGE batch as its frames, as ``[1, 3, T, H, W]``."""
    frames = video if torch.is_tensor(video) else video_components(video, name).images
    return image_pixels(frames, name).movedim(0, 1)[None]


def video_components(video: Any, name: str = "video") -> Any:
    """Frames, frame rate and audio of a VIDEO. Its file is read here."""
    _require(video, name, "a video")
    if not hasattr(video, "get_components"):
        raise ValueError(f"{name}: this is a {type(video).__name__}; connect a video, or images as its frames.")
    try:
        return video.get_components()
    except MemoryError:
        raise
    except Exception as error:  # any error of the file's reader
        raise ValueError(f"{name}: this video cannot be read ({_reason(error)}); look at its file.") from error


def audio_samples(audio: Any, name: str = "audio") -> tuple[Tensor, int]:
    """An AUDIO as samples ``[B, C, N]`` in single precision, and its rate in Hz.

    Parameters
    ----------
    audio : Mapping
        With "waveform", ``[B, C, N]``, ``[C, N]`` or ``[N]``, floats or integer PCM, and "sample_rate". Those of some
        packs read their file only here.
    """
    if audio is None:
        raise ValueError(f"{name}: there is no audio in this, as in a video without any; connect one that has.")
    if not isinstance(audio, Mapping):
        raise ValueError(f"{name}: this is a {type(audio).__name__}; connect audio.")
    samples = as_samples(_entry(audio, "waveform", name), f"{name}: this")
    rate = as_rate(_entry(audio, "sample_rate", name), f"{name}: sample_rate")
    if samples.ndim not in (1, 2, 3):
        raise ValueError(f"{name}: its waveform is of shape {list(samples.shape)}; connect audio, [B, C, N].")
    samples = samples.reshape(*[1] * (3 - samples.ndim), *samples.shape)
    if samples.numel() == 0 or samples.shape[-1] < int(MIN_SECONDS * rate):
        raise ValueError(f"{name}: this is empty; connect audio that lasts at least a hundredth of a second.")
    return samples, rate


def _entry(audio: Mapping, key: str, name: str) -> Any:
    try:
        value = audio[key]
    except KeyError:
        value = None
    except MemoryError:
        raise
    except Exception as error:  # any error of a reader that opens its file here
        raise ValueError(f"{name}: this cannot be read ({_reason(error)}); look at its file.") from error
    if value is None:
        raise ValueError(f"{name}: there is no {key} in this; connect audio from a node that loads or generates it.")
    return value


def _require(value: Any, name: str, kind: str) -> None:
    if value is None:
        raise ValueError(f"{name}: nothing is connected; connect {kind}.")


def _reason(error: Exception) -> str:
    """The first line of an error, without a full stop."""
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0].rstrip(".")
