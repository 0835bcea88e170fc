"""Resampling, mel filter banks and the Griffin-Lim algorithm, by torchaudio if it can be imported.

Newer ComfyUI does not install torchaudio, and installing it could replace the user's torch. Without it, torch evaluates
the same formulas, on any device and with gradients, which `scipy.signal.resample_poly` does not support.
Results in single precision differ from torchaudio's by no more than:

- `resample`: 2e-4 for samples in -1..1. torchaudio rounds the filter's positions; for common rates it is 5e-5.
- `mel_filter_bank`: 1e-5 of the largest weight.
- `griffin_lim`: 1e-6 of the waveform's peak after one iteration and 5e-3 after 32, which magnify rounding.
"""

from __future__ import annotations

import math
from fractions import Fraction
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from ...config import MelConfig

_MAX_TERM = 2000  # of the ratio of two rates; for very different ones, the geometric mean of its terms
# torchaudio's defaults: zero crossings of the filter on each side, and its cutoff as a fraction of the band.
_ZERO_CROSSINGS, _ROLLOFF = 6, 0.99
_MOMENTUM = 0.99
# Slaney's mel scale is linear up to 1000 Hz, which is mel 15, and logarithmic above: 27 mels are a factor of 6.4.
_HZ_PER_MEL, _LINEAR_HZ, _LINEAR_MEL, _LOG_STEP = 200 / 3, 1000.0, 15.0, math.log(6.4) / 27


def _torchaudio() -> ModuleType | None:
    """`torchaudio.functional`; None where it is missing or was built for another torch."""
    try:
        import torchaudio.functional
    except (ImportError, OSError, RuntimeError):
        return None
    return torchaudio.functional


def resample(waveform: Tensor, sample_rate: int, target: int) -> Tensor:
    """Band-limited resampling by a sinc filter with a Hann window.

    Rates without a simple ratio, such as 44 099 and 16 000 Hz, are replaced by the nearest simple ratio, which differs
    by about a millionth: the filter for the exact ratio would take gigabytes.

    Parameters
    ----------
    waveform : Tensor
        Floating-point samples ``[..., N]``. Half precision is filtered in single precision.
    sample_rate, target : int
        In Hz.

    Returns
    -------
    Tensor
        ``[..., ceil(N * target / sample_rate)]``, for the ratio in use, in the dtype of `waveform`. `waveform` itself
        for equal rates.

    Raises
    ------
    ValueError
        For integer samples, or a rate that is not positive.
    """
    if not waveform.is_floating_point():
        raise ValueError(f"Audio samples are numbers in -1..1, not {waveform.dtype}: divide them by their full scale.")
    if min(sample_rate, target) <= 0:
        raise ValueError(f"A sample rate of {min(sample_rate, target)} Hz is impossible; give a positive one.")
    if sample_rate == target:
        return waveform
    if waveform.numel() == 0:
        return waveform.new_zeros(*waveform.shape[:-1], -(-waveform.shape[-1] * target // sample_rate))
    low, high = sorted((sample_rate, target))
    # The filter has about as many values as the product of the terms.
    most = max(round(_MAX_TERM * math.sqrt(high / low)), high // low)
    ratio = Fraction(low, high).limit_denominator(most)
    up, down = ratio.as_integer_ratio() if target == low else ratio.as_integer_ratio()[::-1]
    samples = waveform.to(torch.promote_types(waveform.dtype, torch.float32))
    torchaudio = _torchaudio()
    filtered = torchaudio.resample(samples, down, up) if torchaudio else _resample_by_torch(samples, up, down)
    return filtered.to(waveform.dtype)


def _resample_by_torch(samples: Tensor, up: int, down: int) -> Tensor:
    """Resample by a convolution with `up` kernels, one per phase: ``[..., N]`` -> ``[..., ceil(N * up / down)]``."""
    cutoff = min(up, down) * _ROLLOFF
    reach = math.ceil(_ZERO_CROSSINGS * down / cutoff)
    taps = torch.arange(-reach, reach + down, dtype=torch.float64) / down
    phases = torch.arange(up, dtype=torch.float64)[:, None] / up
    # In zero crossings from the centre of the filter.
    time = ((taps - phases) * cutoff).clamp(-_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    kernels = time.sinc() * (time * math.pi / 2 / _ZERO_CROSSINGS).cos().square() * cutoff / down
    padded = F.pad(samples.reshape(-1, 1, samples.shape[-1]), (reach, reach + down))
    filtered = F.conv1d(padded, kernels[:, None].to(samples), stride=down).transpose(1, 2).flatten(1)
    length = -(-samples.shape[-1] * up // down)
    return filtered[:, :length].reshape(*samples.shape[:-1], length)


def mel_filter_bank(config: MelConfig) -> Tensor:
    """Triangular filters on Slaney's mel scale, each of unit area in Hz: ``[n_fft // 2 + 1, bands]``."""
    bins = config.n_fft // 2 + 1
    torchaudio = _torchaudio()
    if torchaudio:
        return torchaudio.melscale_fbanks(
            bins, config.f_min, config.f_max, config.bands, config.sample_rate, norm="slaney", mel_scale="slaney"
        )
    low, high = _to_mel(config.f_min), _to_mel(config.f_max)
    edges = _to_hz(torch.linspace(low, high, config.bands + 2, dtype=torch.float64))
    frequencies = torch.linspace(0, config.sample_rate // 2, bins, dtype=torch.float64)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (edges[2:] - edges[:-2])).float()


def _to_mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _LINEAR_HZ else _LINEAR_MEL + math.log(hz / _LINEAR_HZ) / _LOG_STEP


def _to_hz(mel: Tensor) -> Tensor:
    logarithmic = _LINEAR_HZ * ((mel - _LINEAR_MEL) * _LOG_STEP).exp()
    return torch.where(mel < _LINEAR_MEL, mel * _HZ_PER_MEL, logarithmic)


def griffin_lim(magnitude: Tensor, window: Tensor, hop: int, length: int, iterations: int = 32) -> Tensor:
    """Estimate a waveform from spectrogram magnitudes by the Griffin-Lim algorithm with momentum 0.99.

    It is deterministic: all phases start at zero.

    Parameters
    ----------
    magnitude : Tensor
        ``[B, n_fft // 2 + 1, frames]`` of centred frames; magnitudes, not powers.
    window : Tensor
        ``[n_fft]``.
    hop, length : int
        Samples between frames, and samples of the waveform.
    iterations : int
        Number of updates of the phases.

    Returns
    -------
    Tensor
        ``[B, length]``.
    """
    size, torchaudio = len(window), _torchaudio()
    if torchaudio:
        return torchaudio.griffinlim(
            magnitude,
            window,
            size,
            hop,
            size,
            power=1.0,
            n_iter=iterations,
            momentum=_MOMENTUM,
            length=length,
            rand_init=False,
        )
    options = {"n_fft": size, "hop_length": hop, "window": window}
    spectrum = torch.complex(magnitude, torch.zeros_like(magnitude))
    previous = torch.zeros_like(spectrum)
    for _ in range(iterations):
        rebuilt = torch.stft(torch.istft(spectrum, length=length, **options), return_complex=True, **options)
        phases = rebuilt - _MOMENTUM / (1 + _MOMENTUM) * previous
        spectrum = magnitude * phases / (phases.abs() + 1e-16)
        previous = rebuilt
    return torch.istft(spectrum, length=length, **options)
