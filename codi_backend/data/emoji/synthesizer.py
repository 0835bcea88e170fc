"""Performances as audio, by a General MIDI soundfont."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...models.autoencoders import resample
from ..world import SAMPLE_RATE, SAMPLES
from .files import PEAK
from .performances import SPACING, Performance

_RATE = 48000  # Hz, at which notes are made; at 16 kHz overtones would fold
_LENGTH = 0.9  # of a note, as a share of the spacing
_FADE = 0.02  # seconds at the end


class Synthesizer:
    """Plays performances with the soundfont in a file; each sounds alone, whatever was played before."""

    def __init__(self, soundfont: Path):
        self._soundfont = str(soundfont)
        self._synth, self._id = None, 0

    def play(self, performance: Performance) -> np.ndarray:
        """Samples at 16 kHz of the model's length."""
        synth = self._ready()
        program = performance.instrument.program
        bank, preset = (128, 0) if program < 0 else (0, program)
        synth.program_select(0, self._id, bank, preset, program < 0)
        length = _LENGTH * SPACING[performance.tempo or "slow"]
        events = [(time, key, performance.velocity) for time, key in performance.notes]
        events += [(time + length, key, 0) for time, key in performance.notes]
        total = round(_RATE * SAMPLES / SAMPLE_RATE)
        pieces, position = [], 0
        for time, key, velocity in sorted(events):
            pieces.append(_mono(synth, min(round(time * _RATE), total) - position))
            position += len(pieces[-1])
            synth.noteon(0, key, velocity) if velocity else synth.noteoff(0, key)
        pieces.append(_mono(synth, total - position))
        synth.sounds_off()
        _mono(synth, _RATE // 10)  # in which the notes fade, so that they do not sound in the next performance
        samples = resample(torch.from_numpy(np.concatenate(pieces)), _RATE, SAMPLE_RATE).double().numpy()
        fade = round(_FADE * SAMPLE_RATE)
        samples[-fade:] *= np.linspace(1, 0, fade)
        return samples * PEAK / max(np.abs(samples).max(), 1e-9)

    def _ready(self):
        """The synthesizer, which is loaded when it is first needed."""
        if self._synth is None:
            import tinysoundfont

            self._synth = tinysoundfont.Synth(samplerate=_RATE)
            self._id = self._synth.sfload(self._soundfont)
        return self._synth


def _mono(synth, count: int) -> np.ndarray:
    """The next samples."""
    return np.frombuffer(bytes(synth.generate(count)), np.float32).reshape(-1, 2).mean(1) if count else np.zeros(0)
