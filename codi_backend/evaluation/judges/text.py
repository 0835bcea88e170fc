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
    """The attributes that a text names; None for an attribute that it leaves out or contradicts itself about."""

    colour: str | None
    shape: str | None
    count: int | None
    tempo: str | None


def judge_text(text: str) -> JudgedText:
    """Find the attributes that a text names, in upper or lower case."""
    # The article of "a picture of two stars" counts pictures.
    words = re.findall(r"\w+", re.sub(r"\ba picture\b", "", text.lower()))
    named: dict[str, set] = {"colour": set(), "shape": set(), "count": set(), "tempo": set()}
    for word in words:
        if word in _WORDS:
            attribute, value = _WORDS[word]
            named[attribute].add(value)
    return JudgedText(**{attribute: values.pop() if len(values) == 1 else None for attribute, values in named.items()})
