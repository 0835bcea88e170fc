"""One-shots and loops, with captions made from their names."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...media.read import read_audio
from ...models.autoencoders import resample
from ..world import SAMPLE_RATE, SAMPLES
from .archives import members
from .files import placed

# By the first word of a name: the caption, in which {} is the rest of the name, unless the rest says nothing.
_KINDS = {
    "ambi": "an ambient {} sound",
    "bass": "a synthesizer bass",
    "bd": "a bass drum",
    "drum": "a {}",
    "elec": "an electronic {} sound",
    "glitch": "a digital glitch, {}",
    "guit": "an electric guitar",
    "hat": "a hi-hat",
    "mehackit": "a {} sound",
    "perc": "a percussive {} sound",
    "ride": "a ride cymbal",
    "sn": "a snare drum",
    "tabla": "a tabla drum",
    "vinyl": "a vinyl record, {}",
}
_ADJECTIVES = ("hard", "soft", "open", "closed", "pedal", "heavy", "hi", "lo", "mid")
_WORDS = {"hi": "high", "lo": "low", "mid": "middle", "filt": "filtered", "perc": "percussion", "g": ""}
_DRUMS = {name: f"{name} drum" for name in ("bass", "snare", "tom", "kick")} | {"splash": "splash cymbal"}
_NAMED = {
    "drum_roll": "a drum roll",
    "misc_burp": "a burp",
    "misc_crow": "a crow",
    "misc_cineboom": "a cinematic boom",
    "perc_door": "a door",
    "perc_till": "a cash register",
    "loop_3d_printer": "a 3D printer",
    "loop_amen_full": "a long drum break",
    "loop_amen": "a drum break",
    "loop_breakbeat": "a breakbeat",
    "loop_electric": "an electric loop",
    "loop_industrial": "an industrial loop",
    "loop_perc": "a percussion loop",
    "loop_safari": "a safari loop",
    "loop_tabla": "a tabla loop",
}


def sample_caption(name: str) -> str | None:
    """A caption made from the name of a file, such as "a soft high tom drum"; None where the name says nothing."""
    name = re.sub(r"\d+$", "", name).rstrip("_")
    kind, *rest = name.split("_")
    if name in _NAMED or kind not in _KINDS:
        return _NAMED.get(name)
    rest.sort(key=lambda word: _ADJECTIVES.index(word) if word in _ADJECTIVES else len(_ADJECTIVES))
    words = [_WORDS.get(word, word) for word in rest]
    caption = _KINDS[kind].format(
        " ".join(_DRUMS.get(word, word) if kind == "drum" else word for word in words).strip()
    )
    return re.sub("^a (?=[aeiou])", "an ", caption)


def samples(archive: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Names, captions, and the first seconds at 16 kHz of the model's length, of the samples that have captions."""

    def wanted(name: str) -> bool:
        return name.endswith(".flac") and sample_caption(_stem(name)) is not None

    with tempfile.TemporaryDirectory() as folder:
        for name, content in members(archive, wanted):
            file = Path(folder, "sample.flac")
            file.write_bytes(content)
            waveform, rate = read_audio(file, seconds=SAMPLES / SAMPLE_RATE + 0.1)
            wave = resample(waveform[0], rate, SAMPLE_RATE).numpy()
            yield _stem(name), sample_caption(_stem(name)), placed(wave)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]
