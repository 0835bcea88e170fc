"""Captions in plain English."""

from __future__ import annotations

import re

from .concepts import Concept
from .splits import choose

NUMBERS = ("no", "one", "two", "three", "four")
"""Numbers of notes in words, by their values."""
# Heads of names without an article: what cannot be counted, adjectives, and plurals that do not end in s.
_MASS = {
    *("bread", "rice", "cheese", "honey", "salt", "butter", "fire", "fog", "snow", "sake", "spaghetti", "ice", "sushi"),
    *("bacon", "ginger", "garlic", "money", "meat", "luggage", "wood", "clothing", "lipstick", "yarn", "broccoli"),
    *("popcorn", "cooking", "camping", "construction", "foggy", "skis", "teeth", "feet", "hockey"),
}
_PLURAL = {"men", "women", "people", "children"}  # at the beginning: "women wrestling"
_ACTING = {"person", "man", "woman"}  # "a person lifting weights"
_SINGULAR = re.compile("(ss|us|is|as|lens|ceros)$")
_REST = re.compile(r",| (with|without|of|in|on|and|holding|at|for|to|from|facing) ")


def with_article(name: str) -> str:
    """A name as it stands in a sentence: "a red apple", "an ambulance", "grapes", "the flag of France"."""
    if name.startswith("flag of "):
        return f"the {name}"
    words = _REST.split(name)[0].split()
    head, first = words[-1], words[0]
    plural = first in _PLURAL or (head.endswith("s") and not _SINGULAR.search(head) and first not in _ACTING)
    if (
        plural
        or head in _MASS
        or first[0].isupper()
        or not name[0].isalpha()
        or re.search("s up$|o'clock|-thirty", name)
    ):
        return name
    vowel = re.match("hour|[aeiou]", name) and not re.match("uni|use|one|eu|ew", name)
    return f"{'an' if vowel else 'a'} {name}"


def thing(concept: Concept) -> str:
    """The concept as a thing; symbols, whose names are words of all kinds, have no article."""
    return concept.name if concept.group == "symbols" else with_article(concept.name)


def image_caption(concept: Concept, style: str) -> str:
    """Such as "a red apple, flat style"; a third has a keyword too: "a red apple, fruit, flat style"."""
    if concept.keywords and choose((False, False, True), "keyword", concept.key, style):
        return f"{thing(concept)}, {choose(concept.keywords, 'which keyword', concept.key, style)}, {style} style"
    return f"{thing(concept)}, {style} style"


def video_caption(concept: Concept, style: str) -> str:
    """Such as "a red apple, 3D style, moving"."""
    return f"{thing(concept)}, {style} style, moving"


def speech_caption(concept: Concept, voice: str) -> str:
    """Such as 'an American man says "red apple"'."""
    return f'{voice} says "{concept.name}"'


def performance_caption(
    subject: str, verb: str, unit: str, count: int, tempo: str | None, direction: str | None, register: str | None
) -> str:
    """Such as "a violin plays three quick rising notes, high"; what is None or "level" is not mentioned."""
    adjectives = [word for word in (tempo, direction) if word and word != "level"]
    noun = unit if count == 1 else f"{unit}s"
    words = " ".join([subject, verb, NUMBERS[count], *adjectives, noun])
    return f"{words}, {register}" if register else words
