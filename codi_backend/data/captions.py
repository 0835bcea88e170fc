"""Scenes as words. An attribute that is left out of a caption is left open, not denied."""

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


def caption(scene: Scene, said: tuple[str, ...] = ATTRIBUTES, rng: np.random.Generator | None = None) -> str:
    """Describe a scene.

    Parameters
    ----------
    said : tuple of str
        The attributes to mention, from `ATTRIBUTES`; with none of them the caption is empty.
    rng : numpy.random.Generator, optional
        Chooses a paraphrase; without it the plain form is used, as in "three red stars, slowly".
    """

    def choose(options: tuple[str, ...]) -> str:
        return options[0] if rng is None else options[int(rng.integers(len(options)))]

    if not said:
        return ""
    adverb = ADVERBS[scene.tempo]
    if said == ("tempo",):
        return choose(_ADVERBS_ALONE).format(adverb=adverb)
    one = "count" in said and scene.count == 1
    thing = scene.shape if "shape" in said else choose(_THINGS)
    noun = thing if one else PLURALS.get(thing, f"{thing}s")
    words = [scene.colour] * ("colour" in said) + [noun]
    if "count" in said:
        article = "an" if words[0][0] in "aeiou" else "a"
        words.insert(0, choose((NUMBERS[scene.count], NUMBERS[scene.count], article if one else NUMBERS[scene.count])))
    else:
        words = choose(("", "", "some ")).split() + words
    phrase = choose(_OPENINGS) + " ".join(words)
    return choose(_TEMPO_FORMS).format(noun=phrase, adverb=adverb) if "tempo" in said else phrase


def caption_words() -> tuple[str, ...]:
    """All words and punctuation marks of captions, in lower case and alphabetical order.

    They are taken from what captions are put together from, so that none is missing.
    """
    numbers, things = [*NUMBERS.values(), "a", "an"], [*PLURALS, *PLURALS.values(), *_THINGS]
    forms = [*_OPENINGS, *_ADVERBS_ALONE, *_TEMPO_FORMS, "some"]
    pieces = [*COLOURS, *numbers, *things, *(f"{thing}s" for thing in _THINGS), *ADVERBS.values()]
    pieces += [form.format(noun="", adverb="") for form in forms]
    return tuple(sorted({word for piece in pieces for word in re.findall(r"\w+|[^\w\s]", piece.lower())}))


def shown(scene: Scene, modality: str) -> tuple[str, ...]:
    """The attributes that content of a modality shows: a picture has no tempo, and neither has a single note."""
    return ATTRIBUTES if modality == "text" or (modality != "image" and scene.count > 1) else ATTRIBUTES[:3]


def partial_caption(scene: Scene, rng: np.random.Generator, leave_out: float = 0.25) -> str:
    """A paraphrase in which each attribute is left out with probability `leave_out`."""
    said = tuple(a for a, kept in zip(ATTRIBUTES, rng.random(len(ATTRIBUTES)) >= leave_out) if kept)
    return caption(scene, said, rng)
