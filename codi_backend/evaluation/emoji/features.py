"""Features by which images and sounds are compared."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from scipy import fft, ndimage
from torch import Tensor
from torch.nn import functional as F

from ...config import MelConfig
from ...models.autoencoders import LogMel

_SIDE, _CELL, _DIRECTIONS = 64, 8, 8
_COLOUR_CELL = 4
# How much each kind of feature counts, found on held-out pairs of the dataset.
_SHAPE_WEIGHT, _COLOUR_WEIGHT = 2 / 15, 1 / 10
_COEFFICIENTS = 24
_WHITE, _FLAT = 0.97, 0.004
_BLUR = 0.9  # of 64 pixels; about that of the small autoencoder
_COLOUR_LEVELS = 6
_EDGES = (0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3, 0.5, 2)  # of the gradient's length
_DETAIL = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 12)  # of the Laplacian
_WORD_TIMES, _WORD_COEFFICIENTS = 32, 13
# Frames of 10 ms: from before the first onset on, and over which levels are averaged and compared.
_NOTE_FRAMES, _BEFORE_NOTES, _NOTE_AVERAGE, _NOTE_STEP = 230, 6, 3, 2
_VIBRATO = 5  # neighbouring bands
_FIRST_ONSET = 0.4  # of the largest increase
_LEVEL_WEIGHT = 0.15
_QUIET = math.log(1e-3)
_LOUD = 0.35  # of the range of levels, above which there is a word


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


def style_features(pixels: Tensor) -> np.ndarray:
    """Histograms of edges, colours, saturation and brightness, wherever they are in an image.

    They are taken at 32 pixels, since autoencoders blur.

    Parameters
    ----------
    pixels : Tensor
        As for `image_features`.

    Returns
    -------
    array
        ``[251]``.
    """
    side = _SIDE // 2
    small = F.interpolate(pixels[None].float(), (side, side), mode="bilinear", antialias=True)[0].clamp(0, 1)
    image = small.permute(1, 2, 0).cpu().numpy()
    drawn = image.min(2) < _WHITE
    count = max(1, drawn.sum())
    down, right = np.gradient(image, axis=(0, 1))
    edges = np.sqrt((down**2 + right**2).sum(2))
    inner = 4 * image[1:-1, 1:-1] - image[:-2, 1:-1] - image[2:, 1:-1] - image[1:-1, :-2] - image[1:-1, 2:]
    levels = np.minimum((image[drawn] * _COLOUR_LEVELS).astype(int), _COLOUR_LEVELS - 1)
    colour = np.bincount(levels @ (_COLOUR_LEVELS ** np.arange(3)), minlength=_COLOUR_LEVELS**3) / count
    saturation = np.histogram((image.max(2) - image.min(2))[drawn], 8, (0, 1))[0] / count
    brightness = np.histogram(image.max(2)[drawn], 8, (0, 1))[0] / count
    flat = (np.abs(np.diff(image, axis=1)).max(2) < _FLAT)[drawn[:, 1:]].sum() / count
    edge_shares = np.histogram(edges, _EDGES)[0] / edges.size
    detail = np.histogram(np.abs(inner).sum(2), _DETAIL)[0] / inner[..., 0].size
    shares = np.concatenate([edge_shares, detail, colour, saturation, brightness])
    return np.concatenate([np.sqrt(shares), [drawn.mean(), flat]])


def blurred(pixels: Tensor) -> Tensor:
    """An image about as an autoencoder blurs it, ``[3, 64, 64]``; `pixels` as for `image_features`."""
    small = F.interpolate(pixels[None].float(), (_SIDE, _SIDE), mode="bilinear", antialias=True)[0]
    return torch.from_numpy(ndimage.gaussian_filter(small.cpu().numpy(), (0, _BLUR, _BLUR)))


def word_features(waveform: Tensor) -> np.ndarray:
    """Mel-frequency cepstral coefficients at equal shares of the time in which there is sound, less their mean.

    So words are alike at any tempo, level and colour of voice.

    Parameters
    ----------
    waveform : Tensor
        As for `timbre_features`.

    Returns
    -------
    array
        ``[416]``.
    """
    bands = _log_mel(waveform)
    level = bands.mean(1)
    loud = np.flatnonzero(level >= level.min() + _LOUD * (level.max() - level.min()))
    cepstrum = fft.dct(bands[loud[0] : loud[-1] + 1], norm="ortho", axis=1)[:, 1 : _WORD_COEFFICIENTS + 1]
    times = np.linspace(0, len(cepstrum) - 1, _WORD_TIMES)
    centred = cepstrum - cepstrum.mean(0)
    resampled = np.stack([np.interp(times, np.arange(len(centred)), column) for column in centred.T])
    return resampled.ravel() / np.sqrt(_WORD_TIMES)


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
    bands = _log_mel(waveform)
    cepstrum = fft.dct(bands, norm="ortho", axis=1)[:, : _COEFFICIENTS + 1]
    level = bands.mean(1)
    loud = cepstrum[level >= np.quantile(level, 0.5), 1:]  # without the first one, which is the level
    change = np.abs(np.diff(cepstrum[:, : _COEFFICIENTS // 2], axis=0)).mean(0)
    return np.concatenate([loud.mean(0), loud.std(0), change])


def note_features(waveform: Tensor) -> np.ndarray:
    """How much sound begins, and the level, every 20 ms from shortly before the first onset on.

    The first is the sum of the increases of log-mel bands above the largest of their neighbours, so that vibrato is no
    onset (as in `audio_onsets`). Decoded audio flutters too much for single onsets to be counted.

    Parameters
    ----------
    waveform : Tensor
        As for `timbre_features`.

    Returns
    -------
    array
        ``[230]``.
    """
    bands = ndimage.uniform_filter1d(np.maximum(_log_mel(waveform), _QUIET), _NOTE_AVERAGE, axis=0)
    before = ndimage.maximum_filter1d(bands, _VIBRATO, axis=1)[:-_NOTE_STEP]
    begins = ndimage.gaussian_filter1d(np.maximum(bands[_NOTE_STEP:] - before, 0).sum(1), _NOTE_STEP)
    level = bands[_NOTE_STEP:].mean(1) - bands.mean(1).min()
    first = int(np.argmax(begins > _FIRST_ONSET * begins.max()))
    begins, level = (
        np.pad(values, (_BEFORE_NOTES, _NOTE_FRAMES))[first : first + _NOTE_FRAMES : 2] for values in (begins, level)
    )
    return np.concatenate([begins / (np.linalg.norm(begins) + 1e-9), _LEVEL_WEIGHT * level / (level.max() + 1e-9)])


def _log_mel(waveform: Tensor) -> np.ndarray:
    """``[frames, bands]``, at a level that does not depend on the audio's."""
    wave = waveform.float() / waveform.abs().max().clamp_min(1e-6)
    return _mel()(wave[None])[0, 0].cpu().numpy()


@functools.cache
def _mel() -> LogMel:
    return LogMel(MelConfig())
