"""Checks and conversion of images, audio, masks, latents and embeddings that users pass as tensors.

`what` is the subject of the messages, with the name of the argument or the node's input, such as "The image of a
prompt" or "image: this".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..modalities import modality
from .numbers import require_finite, require_number

if TYPE_CHECKING:
    from ..models.autoencoders import AudioAutoencoder, ImageAutoencoder, TextAutoencoder

# Resizing and sharpening overshoot 0..1 by less than this. Larger values belong to another range: 0..255, -1..1, HDR.
OVERSHOOT = 0.5
# Full scale is 1; sums of tracks reach a few times that. 100 is 40 dB above; floats scaled as 16-bit PCM exceed it.
MAX_SAMPLE = 100.0
# Autoencoders' latents and encoders' embeddings seldom exceed 50. Networks in half precision overflow at 65504.
MAX_LATENT = 1e4
MAX_EMBEDDING = 1e4
# Sample rates of audio in Hz; resampling filters between rates further apart would fill the memory.
MIN_RATE, MAX_RATE = 100, 1_000_000

_WHITE = {torch.uint8: 255.0, torch.uint16: 65535.0}
_SILENCE_AND_FULL = {
    torch.uint8: (128.0, 128.0),
    torch.int8: (0.0, 128.0),
    torch.int16: (0.0, 32768.0),
    torch.int32: (0.0, 2147483648.0),
}


def as_pixels(values: Any, what: str) -> Tensor:
    """Convert pixels to single precision in 0..1; a small overshoot is kept.

    Parameters
    ----------
    values : Tensor or ndarray
        Of any shape. 8 and 16 unsigned bits are divided by their largest value; bool is black and white.

    Raises
    ------
    ValueError
        For other integers, values that are not finite, or values of another range than 0..1.
    """
    values = _tensor(values, what)
    if values.dtype in _WHITE:
        return values.float() / _WHITE[values.dtype]
    if values.dtype == torch.bool:
        return values.float()
    _require_floats(values, what, "uint8 or floats in 0..1")
    require_unit_range(values, what)
    return values.float()


def as_mask(values: Any, what: str) -> Tensor:
    """Convert a mask to single precision in 0..1; a small overshoot is kept.

    Integers must be 0 and 1, or 0..255 in 8 bits. `ValueError` as for `as_pixels`.
    """
    values = _tensor(values, what)
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        return as_pixels(values, what)
    low, high = require_finite(values, what, "create it again")
    if values.dtype == torch.uint8 and high > 1:
        return values.float() / 255
    if low < 0 or high > 1:
        raise ValueError(f"{what} holds integers from {low:g} to {high:g}: give floats in 0..1, or 8 bits.")
    return values.float()


def as_samples(values: Any, what: str) -> Tensor:
    """Convert audio samples to single precision with full scale -1..1; larger values are kept.

    Parameters
    ----------
    values : Tensor or ndarray
        Of any shape. Integers of 8, 16 and 32 bits are PCM, scaled by their type.

    Raises
    ------
    ValueError
        For other integers, and values that are not finite or too large for audio.
    """
    values = _tensor(values, what)
    if values.dtype in _SILENCE_AND_FULL:
        silence, full = _SILENCE_AND_FULL[values.dtype]
        return (values.float() - silence) / full
    _require_floats(values, what, "int16, int32 or floats in -1..1")
    require_finite(values, what, "make it again with samples in -1..1 (divide those of 16 bits by 32768)", MAX_SAMPLE)
    return values.float()


def as_latent(values: Any, what: str) -> Tensor:
    """Check a latent, in its own precision. `ValueError` for integers, and values that are not finite or too large."""
    values = _tensor(values, what)
    _require_floats(values, what, "floats, as the encoders make them")
    require_finite(values, what, "encode or sample it again, with a lower guidance or in single precision", MAX_LATENT)
    return values


def pixels_to_encode(name: str, values: Any) -> Tensor:
    """Apply `as_pixels` to images ``[B, 3, H, W]`` or videos ``[B, 3, T, H, W]``; `ValueError` for other shapes."""
    pixels = as_pixels(values, f"The {name} to encode")
    if pixels.ndim != modality(name).latent_rank or pixels.shape[1] != 3 or pixels.numel() == 0:
        expected = "[B, 3, H, W]" if name == "image" else "[B, 3, T, H, W]"
        raise ValueError(f"The {name} to encode is of shape {list(pixels.shape)}: give pixels {expected}.")
    return pixels


def latent_to_decode(
    name: str, values: Any, autoencoder: ImageAutoencoder | AudioAutoencoder | TextAutoencoder
) -> Tensor:
    """Apply `as_latent` to a latent of a modality; `ValueError` if the shape does not fit the autoencoder."""
    latents, config = as_latent(values, f"The {name} latent"), autoencoder.config
    sizes: dict[int, int] = {1: config.latent_dim if name == "text" else config.latent_channels}
    axes = {"text": "B, {}", "image": "B, {}, h, w", "video": "B, {}, T, h, w", "audio": "B, {}, T, {}"}[name]
    if name == "audio":
        sizes[3] = config.mel.bands // autoencoder.downscale
    shape = list(latents.shape)
    fits = len(shape) == modality(name).latent_rank and all(shape[axis] == size for axis, size in sizes.items())
    if not fits or latents.numel() == 0:
        expected = axes.format(*sizes.values())
        raise ValueError(f"The {name} latent is of shape {shape}: give latents [{expected}], as `encode` makes them.")
    return latents


def as_embedding_tokens(values: Any, what: str) -> Tensor:
    """Check embeddings ``[B, L, D]`` of a prompt or a context, in their own precision.

    `ValueError` for other shapes, empty tensors, integers, and values that are not finite or too large.
    """
    values = _tensor(values, what)
    if values.ndim != 3 or values.numel() == 0:
        raise ValueError(f"{what} is of shape {list(values.shape)}: give embeddings [B, L, D], as the encoders do.")
    _require_floats(values, what, "floats, as the encoders do")
    require_finite(values, what, "encode the prompt again", MAX_EMBEDDING)
    return values


def as_rate(value: Any, name: str = "sample_rate") -> int:
    """Check and round a sample rate in Hz. `ValueError` if it is out of range."""
    return round(require_number(value, name, MIN_RATE, MAX_RATE))


def require_unit_range(values: Tensor, what: str) -> None:
    """Raise a `ValueError` for floats that are not finite, or that exceed 0..1 by more than a small overshoot."""
    low, high = require_finite(values, what, "check its source, and create it again")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ValueError(
            f"{what} holds values from {low:.3g} to {high:.3g}, where 0 to 1 makes sense: scale it (divide 0..255 by "
            "255; halve -1..1 and add 0.5; tone-map HDR images)."
        )


def _tensor(values: Any, what: str) -> Tensor:
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(values))
    if not torch.is_tensor(values):
        raise ValueError(f"{what} is {_article(values)}: give a tensor.")
    return values


def _require_floats(values: Tensor, what: str, instead: str) -> None:
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        raise ValueError(f"{what} is of type {kind}, whose range is not defined here: give {instead}.")


def _article(value: Any) -> str:
    name = type(value).__name__
    return "nothing" if value is None else f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
