"""Spoken names, by espeak-ng."""

from __future__ import annotations

import io
import subprocess
import wave
from dataclasses import dataclass

import numpy as np
import torch

from ...models.autoencoders import resample
from ..world import SAMPLE_RATE, SAMPLES
from .files import placed
from .splits import held_out_voices

START = 0.1  # seconds
_RATES = (170, 215, 270)  # words a minute; the first at which the name fits
_SILENCE = 0.005  # of the peak


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng: its identifier, and its words in captions."""

    name: str
    words: str


VOICES = (
    Voice("en-us+m3", "an American man"),
    Voice("en-us+f2", "an American woman"),
    Voice("en-gb+m1", "a British man"),
    Voice("en-gb+f3", "a British woman"),
    Voice("en-gb-scotland+m7", "a Scottish man"),
    Voice("en-gb-scotland+f4", "a Scottish woman"),
    Voice("en-029+m2", "a Caribbean man"),
    Voice("en-029+f5", "a Caribbean woman"),
)
_WOMEN = [voice.name for voice in VOICES if voice.words.endswith("woman")]
_MEN = [voice.name for voice in VOICES if voice.name not in _WOMEN]
HELD_OUT = held_out_voices(_WOMEN) | held_out_voices(_MEN)
"""Names of the voices that training does not have."""


def speak(text: str, voice: Voice) -> np.ndarray | None:
    """A text as samples at 16 kHz of the model's length; None if it is too long for that at any rate.

    Raises
    ------
    ValueError
        If espeak-ng fails.
    """
    for rate in _RATES:
        samples = _spoken(text, voice, rate)
        if len(samples) <= SAMPLES - round(START * SAMPLE_RATE):
            return placed(samples, START)
    return None


def version() -> str:
    """The first line of what espeak-ng says about itself."""
    done = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, errors="replace")
    return done.stdout.partition("  Data")[0].strip()


def _spoken(text: str, voice: Voice, rate: int) -> np.ndarray:
    """Samples at 16 kHz without the silence at both ends."""
    command = ["espeak-ng", "-v", voice.name, "-s", str(rate), "--stdin", "--stdout"]
    done = subprocess.run(command, input=text.encode(), capture_output=True)
    try:
        with wave.open(io.BytesIO(done.stdout)) as file:
            frequency, samples = file.getframerate(), np.frombuffer(file.readframes(10**7), "<i2")
    except (wave.Error, EOFError):
        samples = np.zeros(0)
    loud = np.flatnonzero(np.abs(samples.astype(float)) > _SILENCE * np.abs(samples.astype(float)).max(initial=1))
    if done.returncode or not len(loud):
        reason = done.stderr.decode(errors="replace").strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"espeak-ng did not say {text!r} with the voice {voice.name} ({reason or 'no sound'}): check that "
            "espeak-ng works, or leave speech out with --only."
        )
    spoken = torch.from_numpy(samples[loud[0] : loud[-1] + 1] / 32768.0)
    return resample(spoken, frequency, SAMPLE_RATE).numpy()
