"""Fixed pseudo-random choices: everything that varies in the dataset follows from hashes of names, not from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_CONCEPTS = 0.2  # of which one style is held out
_PERFORMANCES = 0.1
_VOICES = 0.25


def share(*parts: object) -> float:
    """A number in 0..1 that follows from the parts."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def choose(options: Sequence[T], *parts: object) -> T:
    """One of the options."""
    return options[int(share(*parts) * len(options))]


def held_out_style(concept: str, styles: Sequence[str]) -> str | None:
    """The style of a concept that is held out for testing, for a fifth of the concepts with several styles.

    `styles` are those that have the concept. So no concept is held out wholly.
    """
    if len(styles) < 2 or share("style", concept) >= _CONCEPTS:
        return None
    return choose(sorted(styles), "which style", concept)


def held_out_voices(voices: Sequence[str]) -> set[str]:
    """The quarter of the voices that is held out wholly."""
    return set(sorted(voices, key=lambda voice: share("voice", voice))[: round(_VOICES * len(voices))])


def is_held_out_performance(*attributes: object) -> bool:
    """Whether an instrument's combination of number of notes, tempo, direction and register is held out."""
    return share("performance", *attributes) < _PERFORMANCES
