"""Onsets in audio of any kind, by spectral flux."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage, signal

from ..models.autoencoders import resample

_RATE = 16000  # Hz
_HOP, _WINDOW = 160, 512  # samples; 10 ms and 32 ms
_LEAD = 0.010  # seconds; compressed levels rise most before a sound reaches the middle of the window
_SILENCE = 1e-3  # largest sample
_COMPRESSION = 100.0  # of magnitudes relative to the largest: log(1 + 100 x)
_VIBRATO = 3  # neighbouring frequencies
_SPACING = 0.06  # seconds to either side in which an onset is the largest value
_SURROUNDINGS = 0.2  # seconds of the mean that an onset exceeds
_MIN_FLUX = 0.15  # of the largest flux, above that mean


def audio_onsets(waveform: torch.Tensor, sample_rate: int) -> np.ndarray:
    """Times in seconds at which sounds begin; none in silence.

    The spectral flux is the sum over frequencies of the increases of the log-magnitude spectrum from one frame of 10 ms
    to the next, above the largest level of neighbouring frequencies, so that vibrato is no onset (SuperFlux, Böck and
    Widmer, DAFx 2013). An onset is a local maximum of the flux that exceeds its surroundings.

    Parameters
    ----------
    waveform : Tensor
        ``[1, N]`` or ``[N]`` samples, at any level.
    sample_rate : int
        Hz.

    Returns
    -------
    array
        ``[K]``, ascending. Audio that begins within a sound has an onset at 0.
    """
    wave = resample(waveform.reshape(-1).float(), sample_rate, _RATE).double().numpy()
    if not wave.size or np.abs(wave).max() < _SILENCE:
        return np.zeros(0)
    # Silence before the audio, so that a sound at its beginning is an onset.
    padded = np.pad(wave, (_WINDOW, _WINDOW))
    _, _, spectrum = signal.stft(
        padded, nperseg=_WINDOW, noverlap=_WINDOW - _HOP, boundary=None, padded=False, detrend=False
    )
    magnitude = np.abs(spectrum)
    levels = np.log1p(_COMPRESSION * magnitude / magnitude.max())
    before = ndimage.maximum_filter1d(levels, _VIBRATO, axis=0)
    flux = np.maximum(levels[:, 1:] - before[:, :-1], 0).sum(0)  # [i] is the increase from frame i to i + 1
    reach = round(_SPACING * _RATE / _HOP)
    mean = ndimage.uniform_filter1d(flux, 2 * round(_SURROUNDINGS * _RATE / _HOP / 2) + 1, mode="constant")
    peaks = np.flatnonzero(
        (flux == ndimage.maximum_filter1d(flux, 2 * reach + 1, mode="constant"))
        & (flux > mean + _MIN_FLUX * flux.max())
    )
    centres = ((peaks + 0.5) * _HOP + _WINDOW / 2 - _WINDOW) / _RATE
    return np.clip(centres + _LEAD, 0, len(wave) / _RATE)
