"""What instruments play: the combinations of notes, tempo, direction and register, and their captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..world import TEMPI
from .captions import performance_caption
from .splits import choose, is_held_out_performance, share

SPACING = {"slow": TEMPI["slow"], "quick": TEMPI["fast"]}  # seconds between onsets
_DIRECTIONS = {"level": 0, "rising": 1, "falling": -1}
_SCALE = (0, 2, 4, 5)  # semitones of the first four notes of a major scale
_REGISTERS = {"low": -12, None: 0, "high": 12}  # semitones
_LEVELS = {"soft": 50, None: 90, "loud": 124}  # MIDI velocities


@dataclass(frozen=True)
class Instrument:
    """An instrument that an emoji shows.

    Attributes
    ----------
    emoji, name : str
        Such as "🎻" and "violin", which names files.
    subject, verb, unit : str
        Of captions: "a violin", "plays", "note".
    program : int
        Of General MIDI, from 0; for drums -1.
    key : int
        MIDI key around which it plays, or that is the drum.
    """

    emoji: str
    name: str
    subject: str
    program: int
    key: int
    verb: str = "plays"
    unit: str = "note"


def _drum(emoji: str, name: str, subject: str, key: int, verb: str = "plays", unit: str = "beat") -> Instrument:
    return Instrument(emoji, name, subject, -1, key, verb, unit)


INSTRUMENTS = (
    Instrument("🎻", "violin", "a violin", 40, 69),
    Instrument("🎸", "guitar", "a guitar", 27, 57),
    Instrument("🎹", "piano", "a piano", 0, 62),
    Instrument("🎺", "trumpet", "a trumpet", 56, 67),
    Instrument("🎷", "saxophone", "a saxophone", 65, 62),
    Instrument("🪗", "accordion", "an accordion", 21, 65),
    Instrument("🪕", "banjo", "a banjo", 105, 62),
    Instrument("🪈", "flute", "a flute", 73, 76),
    Instrument("🪉", "harp", "a harp", 46, 64),
    Instrument("📯", "horn", "a horn", 60, 57),
    Instrument("🪊", "trombone", "a trombone", 57, 55),
    Instrument("🔔", "bell", "a bell", 14, 72, "rings", "note"),
    _drum("🥁", "drum", "a drum", 38),
    _drum("🪘", "long_drum", "a long drum", 64),
    _drum("🪇", "maracas", "maracas", 70, "play"),
    _drum("👏", "clapping", "hands", 39, "clap", "beat"),
)


@dataclass(frozen=True)
class Performance:
    """A few notes on an instrument.

    Attributes
    ----------
    tempo, direction : str or None
        None for one note; direction also for drums.
    register, level : str or None
        "low" and "high" of pitched instruments, "soft" and "loud" of drums; None between them.
    """

    instrument: Instrument
    count: int
    tempo: str | None
    direction: str | None
    register: str | None
    level: str | None

    @property
    def name(self) -> str:
        """Of its file."""
        parts = (self.count, self.tempo, self.direction, self.register, self.level)
        return "-".join(str(part) for part in (self.instrument.name, *parts) if part is not None)

    @property
    def caption(self) -> str:
        what = self.instrument
        extra = self.register or self.level
        return performance_caption(what.subject, what.verb, what.unit, self.count, self.tempo, self.direction, extra)

    @property
    def held_out(self) -> bool:
        return is_held_out_performance(*self.name.split("-"))

    @property
    def velocity(self) -> int:
        return _LEVELS[self.level]

    @property
    def notes(self) -> list[tuple[float, int]]:
        """Onsets in seconds and MIDI keys."""
        start = 0.1 + 0.2 * share("start", self.name)
        key = self.instrument.key
        if self.instrument.program >= 0:
            key += _REGISTERS[self.register] + choose(range(-3, 4), "key", self.name)
        spacing = SPACING[self.tempo] if self.tempo else 0.0
        sign = _DIRECTIONS[self.direction or "level"]
        return [(start + i * spacing, key + sign * _SCALE[i]) for i in range(self.count)]


def performances() -> Iterator[Performance]:
    """All performances, in a fixed order."""
    for instrument in INSTRUMENTS:
        pitched = instrument.program >= 0
        for register in _REGISTERS if pitched else (None,):
            for level in (None,) if pitched else _LEVELS:
                yield Performance(instrument, 1, None, None, register, level)
                for count in (2, 3, 4):
                    for tempo in SPACING:
                        for direction in _DIRECTIONS if pitched else (None,):
                            yield Performance(instrument, count, tempo, direction, register, level)
