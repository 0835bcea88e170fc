"""Scenes as audio: one note per object, its pitch the colour, its timbre the shape."""

from __future__ import annotations

import functools

import numpy as np

from .world import PITCHES, SAMPLE_RATE, SAMPLES, Scene

_ATTACK = 0.010  # seconds
_NYQUIST = SAMPLE_RATE / 2


def render_audio(scene: Scene) -> np.ndarray:
    """Synthesise a scene: float32 ``[40960]``, mono at 16 kHz, its largest sample `scene.peak`."""
    wave = np.zeros(SAMPLES, np.float32)
    note = _note(scene.shape, PITCHES[scene.colour])
    for onset in scene.onsets:
        first = round(onset * SAMPLE_RATE)
        wave[first:] += note[: SAMPLES - first]
    return wave * np.float32(scene.peak / np.abs(wave).max())


@functools.cache
def _note(shape: str, pitch: float) -> np.ndarray:
    """A note that begins at sample 0 and rings to the end of the audio."""
    t = np.arange(SAMPLES) / SAMPLE_RATE
    decay = 0.10 if shape == "cross" else 0.18  # seconds; the plucked string is shorter
    envelope = np.minimum(t / _ATTACK, 1) * np.exp(-t / decay)
    return (envelope * _TIMBRES[shape](pitch, t)).astype(np.float32)


def _harmonics(pitch: float, t: np.ndarray, amplitudes: dict[int, float]) -> np.ndarray:
    return sum(a * np.sin(2 * np.pi * n * pitch * t) for n, a in amplitudes.items() if n * pitch < _NYQUIST)


def _square_wave(pitch: float, t: np.ndarray) -> np.ndarray:
    return _harmonics(pitch, t, {n: 1 / n for n in range(1, 32, 2)})


def _triangle_wave(pitch: float, t: np.ndarray) -> np.ndarray:
    return _harmonics(pitch, t, {n: (-1) ** (n // 2) / n**2 for n in range(1, 16, 2)})


def _bell(pitch: float, t: np.ndarray) -> np.ndarray:
    # An index of at most 1 keeps the carrier the strongest partial, and so the pitch.
    return np.sin(2 * np.pi * pitch * t + np.exp(-t / 0.5) * np.sin(2 * np.pi * 3.5 * pitch * t))


def _organ(pitch: float, t: np.ndarray) -> np.ndarray:
    return _harmonics(pitch, t, {1: 1.0, 2: 0.8, 3: 0.6, 4: 0.4})


def _plucked_string(pitch: float, t: np.ndarray) -> np.ndarray:
    # Higher harmonics of a string decay sooner.
    return sum(np.exp(-2 * (n - 1) * t) / n * np.sin(2 * np.pi * n * pitch * t) for n in range(1, 13))


_TIMBRES = {
    "circle": lambda pitch, t: np.sin(2 * np.pi * pitch * t),
    "square": _square_wave,
    "triangle": _triangle_wave,
    "star": _bell,
    "heart": _organ,
    "cross": _plucked_string,
}
