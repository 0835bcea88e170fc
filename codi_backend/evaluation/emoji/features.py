"""Features by which images and sounds are compared."""

from __future__ import annotations

import functools

import numpy as np
from scipy import fft
from torch import Tensor
from torch.nn import functional as F

from ...config import MelConfig
from ...models.autoencoders import LogMel

_SIDE, _CELL, _DIRECTIONS = 64, 8, 8
_COLOUR_CELL = 4
# How much each kind of feature counts, found on held-out pairs of the dataset.
_SHAPE_WEIGHT, _COLOUR_WEIGHT = 2 / 15, 1 / 10
_COEFFICIENTS = 24


def image_features(pixels: Tensor) -> np.ndarray:
    """Histograms of oriented gradients (HOG) and colours of small squares.

    Parameters
    ----------
    pixels : Tensor
        ``[3, H, W]`` in 0..1, square, of any size.

    Returns
    -------
    array
        ``[1280]``.
    """
    small = F.interpolate(pixels[None].float(), (_SIDE, _SIDE), mode="bilinear", antialias=True)[0].clamp(0, 1)
    image = small.permute(1, 2, 0).cpu().numpy()
    down, right = np.gradient(image.mean(2))
    length = np.hypot(down, right)
    direction = (np.arctan2(down, right) % np.pi / np.pi * _DIRECTIONS).astype(int) % _DIRECTIONS
    cells = _SIDE // _CELL
    layers = length[..., None] * (direction[..., None] == np.arange(_DIRECTIONS))
    shape = layers.reshape(cells, _CELL, cells, _CELL, _DIRECTIONS).sum((1, 3))
    shape /= np.linalg.norm(shape, axis=2, keepdims=True) + 0.05
    squares = _SIDE // _COLOUR_CELL
    colour = image.reshape(squares, _COLOUR_CELL, squares, _COLOUR_CELL, 3).mean((1, 3)) - 1  # of the white around
    return np.concatenate([_SHAPE_WEIGHT * shape.ravel(), _COLOUR_WEIGHT * colour.ravel()])


def timbre_features(waveform: Tensor) -> np.ndarray:
    """Mel-frequency cepstral coefficients: their mean and spread in the louder half, and how they change.

    Parameters
    ----------
    waveform : Tensor
        ``[1, N]`` at 16 kHz, at any level.

    Returns
    -------
    array
        ``[60]``.
    """
    wave = waveform.float() / waveform.abs().max().clamp_min(1e-6)
    bands = _mel()(wave[None])[0, 0].cpu().numpy()  # [frames, bands]
    cepstrum = fft.dct(bands, norm="ortho", axis=1)[:, : _COEFFICIENTS + 1]
    level = bands.mean(1)
    loud = cepstrum[level >= np.quantile(level, 0.5), 1:]  # without the first one, which is the level
    change = np.abs(np.diff(cepstrum[:, : _COEFFICIENTS // 2], axis=0)).mean(0)
    return np.concatenate([loud.mean(0), loud.std(0), change])


@functools.cache
def _mel() -> LogMel:
    return LogMel(MelConfig())
