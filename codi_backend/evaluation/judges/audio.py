"""Pitch, timbre, number and spacing of the notes in audio."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from ...data.audio import render_audio
from ...data.world import PITCHES, SAMPLE_RATE, SHAPES, TEMPI, Scene
from ...models.autoencoders import resample
from .common import finite

# Times in seconds.
_SILENCE = 1e-3  # largest sample
_HOP = 0.005
_ENVELOPE_BLUR = 0.005
_NOTELESS = 0.1  # share of the audio that is assumed to hold no note
_RISE_WINDOW = 0.060
_MIN_SPACING = 0.150
_MIN_RISE = 0.25  # of the steepest rise in the audio
_MIN_CONTRAST = 0.35  # of the level around the note's beginning
_PITCH_RANGE = (230.0, 600.0)  # Hz
_PITCH_WINDOW = 0.128
_LINE_WIDTH = 25.0  # Hz to either side; the two lowest notes are 32 apart
_MIN_TONALITY = 0.2  # energy of the strongest partial over all energy; 0.4 and more in the world's timbres
_MIN_OCTAVE = 0.15  # energy of a fundamental over that of its octave
_PROFILE_TIMES = (0.045, 0.150)  # after the onset: the second one shows the decay
_PROFILE_WINDOW = 0.064
_PARTIALS = np.arange(2, 17) / 2  # of the fundamental; the bell's partials lie at halves
_PROFILE_FLOOR = -35.0  # dB under the strongest partial
_MAX_PROFILE_DISTANCE = 6.0  # dB, mean over the profile


@dataclass(frozen=True)
class JudgedAudio:
    """The attributes of audio; None where the judge cannot measure one.

    Attributes
    ----------
    colour : str or None
        From the pitch.
    shape : str or None
        From the timbre.
    count : int or None
        Number of notes; None without notes, as in silence and in noise.
    onsets : tuple of float
        Seconds at which the notes begin.
    tempo : str or None
        From the spacing of the notes; None for one note.
    pitch : float or None
        Hz, as measured.
    """

    colour: str | None
    shape: str | None
    count: int | None
    onsets: tuple[float, ...] = ()
    tempo: str | None = None
    pitch: float | None = None


def judge_audio(waveform: Any, sample_rate: int = SAMPLE_RATE) -> JudgedAudio:
    """Measure pitch, timbre, number and spacing of the notes in audio.

    Parameters
    ----------
    waveform : array or tensor
        ``[N]`` or ``[1, N]`` samples, at any level.
    sample_rate : int
        Hz.

    Raises
    ------
    ValueError
        If the audio has another layout or samples that are not finite.
    """
    wave = finite(waveform, "audio")
    if wave.ndim == 2 and wave.shape[0] == 1:
        wave = wave[0]
    if wave.ndim != 1:
        raise ValueError(f"The audio to judge must be [N] or [1, N], not {list(wave.shape)}.")
    if not wave.size or np.abs(wave).max() < _SILENCE:
        return JudgedAudio(None, None, None)
    wave = resample(torch.from_numpy(wave), sample_rate, SAMPLE_RATE).numpy()

    pitch = _pitch(wave)
    onsets = _onsets(wave) if pitch else ()
    if not (pitch and onsets):
        return JudgedAudio(None, None, None)  # noise has loud moments too, but no notes
    steps = np.diff(onsets)
    return JudgedAudio(
        colour=_nearest(pitch, PITCHES),
        shape=_timbre(wave, onsets, pitch),
        count=len(onsets),
        onsets=onsets,
        tempo=_nearest(float(np.median(steps)), TEMPI) if len(steps) else None,
        pitch=pitch,
    )


def _nearest(value: float, named: Mapping[str, float]) -> str | None:
    """The name whose value is nearest on a logarithmic scale, if within half of the smallest step between two."""
    logs = sorted(math.log(v) for v in named.values())
    limit = min(b - a for a, b in itertools.pairwise(logs)) / 2
    distances = {name: abs(math.log(value / v)) for name, v in named.items()}
    name = min(distances, key=distances.__getitem__)
    return name if distances[name] <= limit else None


def _onsets(wave: np.ndarray) -> tuple[float, ...]:
    """Seconds at which notes begin: where the level rises steeply, from well below to well above."""
    hop = round(_HOP * SAMPLE_RATE)
    frames = np.pad(wave.astype(np.float64), (0, -wave.size % hop)).reshape(-1, hop)
    power = ndimage.gaussian_filter1d((frames**2).mean(1), _ENVELOPE_BLUR / _HOP, mode="nearest")
    level = np.sqrt(np.maximum(power - np.quantile(power, _NOTELESS), 0))  # steady hiss is not a note

    near = round(_RISE_WINDOW / _HOP)

    def means(values: np.ndarray) -> np.ndarray:  # [i] is over the frames i - near to i - 1, padded with silence
        sums = np.concatenate([[0], np.cumsum(np.pad(values, near))])
        return (sums[near:] - sums[:-near]) / near

    frame = np.arange(level.size)
    rise = means(level)[frame + near] - means(level)[frame]
    peaks = np.flatnonzero(
        (rise == ndimage.maximum_filter1d(rise, 2 * round(_MIN_SPACING / _HOP) + 1))
        & (rise > _MIN_RISE * rise.max())
        & (rise > _MIN_CONTRAST * means(np.sqrt(power))[frame + near])
    )
    return tuple(_half_way_up(level, int(peak), near) for peak in peaks)


def _half_way_up(level: np.ndarray, peak: int, near: int) -> float:
    """Seconds at which the level is half-way up a rise, which smearing moves little."""
    first = max(peak - near, 0)
    stretch = level[first : peak + near + 1]
    top = int(stretch.argmax())
    bottom = int(stretch[: top + 1].argmin())
    half = (stretch[bottom] + stretch[top]) / 2
    above = bottom + int(np.argmax(stretch[bottom : top + 1] >= half))
    if above == 0:  # the audio begins within the note
        return first * _HOP
    below = float(stretch[above - 1])
    frame = first + above - 1 + (half - below) / (float(stretch[above]) - below)
    return float((frame + 0.5) * _HOP)  # a frame's level belongs to its centre


def _pitch(wave: np.ndarray) -> float | None:
    """The fundamental in Hz; None if the audio is not tonal."""
    # The powers of short pieces are added: in one spectrum of the whole audio, notes of one pitch can cancel.
    size = round(_PITCH_WINDOW * SAMPLE_RATE)
    pieces = np.lib.stride_tricks.sliding_window_view(np.pad(wave, size // 2), size)[:: size // 4]
    power = (np.abs(np.fft.rfft(pieces * np.hanning(size), 4 * size)) ** 2).sum(0)
    frequencies = np.fft.rfftfreq(4 * size, 1 / SAMPLE_RATE)

    def around(frequency: float) -> np.ndarray:
        return power * (np.abs(frequencies - frequency) < _LINE_WIDTH)

    allowed = (frequencies >= _PITCH_RANGE[0]) & (frequencies <= _PITCH_RANGE[1])
    pitch = frequencies[np.argmax(power * allowed)]
    line = around(pitch)
    if line.sum() < _MIN_TONALITY * power.sum():
        return None
    # The octave can be the stronger one where notes overlap, but it is never alone.
    octave_below = around(pitch / 2)
    if pitch / 2 >= _PITCH_RANGE[0] and octave_below.sum() > _MIN_OCTAVE * line.sum():
        line = octave_below
    return float((frequencies * line).sum() / line.sum())


def _timbre(wave: np.ndarray, onsets: Sequence[float], pitch: float) -> str | None:
    """The shape whose rendered note has the most similar partials, at the onset and a little later."""
    profile = _profile(wave, onsets, pitch)
    colour = min(PITCHES, key=lambda name: abs(math.log(pitch / PITCHES[name])))
    distances = {shape: float(np.abs(profile - _reference(colour, shape)).mean()) for shape in SHAPES}
    shape = min(distances, key=distances.__getitem__)
    return shape if distances[shape] <= _MAX_PROFILE_DISTANCE else None


@functools.cache
def _reference(colour: str, shape: str) -> np.ndarray:
    scene = Scene(colour, shape, count=1, tempo="slow", start=0.5, peak=0.5, places=())
    return _profile(render_audio(scene), scene.onsets, PITCHES[colour])


def _profile(wave: np.ndarray, onsets: Sequence[float], pitch: float) -> np.ndarray:
    """Levels of the partials in dB under the strongest one at the onset, mean of all notes: ``[times, partials]``."""
    size = round(_PROFILE_WINDOW * SAMPLE_RATE)
    window = np.hanning(size)
    padded = np.pad(wave, size)
    frequencies = np.fft.rfftfreq(2 * size, 1 / SAMPLE_RATE)
    bands = np.abs(frequencies[:, None] / pitch - _PARTIALS) <= 0.25  # [bins, partials]
    power = np.zeros((len(_PROFILE_TIMES), len(_PARTIALS)))
    for onset in onsets:
        for row, time in enumerate(_PROFILE_TIMES):
            first = round((onset + time) * SAMPLE_RATE) + size // 2  # in `padded`, of a window centred at that time
            piece = padded[first : first + size]
            piece = np.pad(piece, (0, size - piece.size))
            power[row] += (np.abs(np.fft.rfft(piece * window, 2 * size)) ** 2) @ bands
    levels = 10 * np.log10(np.maximum(power, 1e-20) / max(power[0].max(), 1e-20))
    return np.maximum(levels, _PROFILE_FLOOR)
