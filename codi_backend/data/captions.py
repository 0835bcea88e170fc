"""Captions of scenes. An attribute that a caption leaves out is unspecified, not denied."""

from __future__ import annotations

import re

import numpy as np

from .world import COLOURS, Scene

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "heart": "hearts",
    "cross": "crosses",
}
ATTRIBUTES = ("colour", "shape", "count", "tempo")
ADVERBS = {"slow": "slowly", "fast": "quickly"}

_THINGS = ("shape", "object", "thing")
_OPENINGS = ("", "", "", "", "a picture of ", "I see ", "the sound of ")
_ADVERBS_ALONE = ("{adverb}", "something, {adverb}", "shapes, {adverb}")
_TEMPO_FORMS = ("{noun}, {adverb}", "{noun}, {adverb}", "{noun}, {adverb}", "{noun} {adverb}", "{adverb}, {noun}")


def caption(scene: Scene, stated: tuple[str, ...] = ATTRIBUTES, rng: np.random.Generator | None = None) -> str:
    """Describe a scene.

    Parameters
    ----------
    stated : tuple of str
        The attributes to mention, from `ATTRIBUTES`; with none of them the caption is empty.
    rng : numpy.random.Generator, optional
        Chooses a paraphrase; without it the plain form is used, as in "three red stars, slowly".
    """

    def choose(options: tuple[str, ...]) -> str:
        return options[0] if rng is None else options[int(rng.integers(len(options)))]

    if not stated:
        return ""
    adverb = ADVERBS[scene.tempo]
    if stated == ("tempo",):
        return choose(_ADVERBS_ALONE).format(adverb=adverb)
    one = "count" in stated and scene.count == 1
    thing = scene.shape if "shape" in stated else choose(_THINGS)
    noun = thing if one else PLURALS.get(thing, f"{thing}s")
    words = [scene.colour] * ("colour" in stated) + [noun]
    if "count" in stated:
        article = "an" if words[0][0] in "aeiou" else "a"
        words.insert(0, choose((NUMBERS[scene.count], NUMBERS[scene.count], article if one else NUMBERS[scene.count])))
    else:
        words = choose(("", "", "some ")).split() + words
    phrase = choose(_OPENINGS) + " ".join(words)
    return choose(_TEMPO_FORMS).format(noun=phrase, adverb=adverb) if "tempo" in stated else phrase


def caption_words() -> tuple[str, ...]:
    """All words and punctuation marks of captions, in lower case and alphabetical order.

    They come from the tables of `caption`, so that none is missing.
    """
    numbers, things = [*NUMBERS.values(), "a", "an"], [*PLURALS, *PLURALS.values(), *_THINGS]
    forms = [*_OPENINGS, *_ADVERBS_ALONE, *_TEMPO_FORMS, "some"]
    pieces = [*COLOURS, *numbers, *things, *(f"{thing}s" for thing in _THINGS), *ADVERBS.values()]
    pieces += [form.format(noun="", adverb="") for form in forms]
    return tuple(sorted({word for piece in pieces for word in re.findall(r"\w+|[^\w\s]", piece.lower())}))


def described_attributes(scene: Scene, modality: str) -> tuple[str, ...]:
    """The attributes that content of a modality has: an image has no tempo, and neither has a single note."""
    return ATTRIBUTES if modality == "text" or (modality != "image" and scene.count > 1) else ATTRIBUTES[:3]


def partial_caption(scene: Scene, rng: np.random.Generator, leave_out: float = 0.25) -> str:
    """A paraphrase in which each attribute is left out with probability `leave_out`."""
    stated = tuple(a for a, kept in zip(ATTRIBUTES, rng.random(len(ATTRIBUTES)) >= leave_out) if kept)
    return caption(scene, stated, rng)
