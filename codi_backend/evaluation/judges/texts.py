"""The attributes that a text names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...data.captions import ADVERBS, NUMBERS, PLURALS
from ...data.world import COLOURS

_WORDS: dict[str, tuple[str, str | int]] = {
    **{name: ("colour", name) for name in COLOURS},
    **{word: ("shape", shape) for shape, plural in PLURALS.items() for word in (shape, plural)},
    **{word: ("count", count) for count, word in NUMBERS.items()},
    **{article: ("count", 1) for article in ("a", "an")},
    **{word: ("tempo", tempo) for tempo, adverb in ADVERBS.items() for word in (tempo, adverb)},
}


@dataclass(frozen=True)
class JudgedText:
    """What a text says; None for what it does not name, and for what it names in contradictory ways."""

    colour: str | None
    shape: str | None
    count: int | None
    tempo: str | None


def judge_text(text: str) -> JudgedText:
    """Tell which attributes a text names; upper and lower case are alike."""
    # The article of "a picture of two stars" counts pictures.
    words = re.findall(r"\w+", re.sub(r"\ba picture\b", "", text.lower()))
    named: dict[str, set] = {"colour": set(), "shape": set(), "count": set(), "tempo": set()}
    for word in words:
        if word in _WORDS:
            attribute, value = _WORDS[word]
            named[attribute].add(value)
    return JudgedText(**{attribute: values.pop() if len(values) == 1 else None for attribute, values in named.items()})
