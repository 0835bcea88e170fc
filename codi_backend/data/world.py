"""Scenes of Shapes & Chimes: a few attributes with an image, audio and text form each.

A `Scene` holds the attributes; `images`, `audio` and `captions` render it. A seed fixes everything.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

COLOURS = {
    "red": (220, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (235, 215, 50),
    "green": (50, 170, 70),
    "blue": (50, 90, 220),
    "purple": (150, 60, 190),
}
PITCHES = dict(zip(COLOURS, (261.63, 293.66, 329.63, 392.00, 440.00, 523.25)))  # Hz
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
TIMBRES = dict(zip(SHAPES, ("sine", "square wave", "triangle wave", "FM bell", "organ", "plucked string")))
COUNTS = (1, 2, 3, 4)
TEMPI = {"slow": 0.55, "fast": 0.25}  # seconds between onsets
START_RANGE = (0.10, 0.50)  # seconds
SIZE_RANGE = (13, 19)  # pixels, both included
PEAK_RANGE = (0.3, 0.8)

IMAGE_SIZE = 64
BACKGROUND = (245, 245, 245)
FRAMES = 16
FRAME_RATE = 6.25
SAMPLE_RATE = 16000
SAMPLES = 40960  # 2.56 s

_GAP = 3  # pixels of background between two objects, and between an object and the border


@dataclass(frozen=True)
class Scene:
    """One scene. `places` holds ``(left, top, size)`` in pixels for each object, in order of appearance."""

    colour: str
    shape: str
    count: int
    tempo: str
    start: float
    peak: float
    places: tuple[tuple[int, int, int], ...]

    @property
    def onsets(self) -> tuple[float, ...]:
        """Seconds at which each object appears and its note begins."""
        return tuple(self.start + i * TEMPI[self.tempo] for i in range(self.count))


def is_held_out(colour: str, shape: str, count: int) -> bool:
    """Whether a (colour, shape, count) triple is kept out of training: 22 of the 144, spread over all values."""
    return (2 * list(COLOURS).index(colour) + 3 * SHAPES.index(shape) + count) % 13 in (0, 5)


def sample_scene(seed: int, index: int, split: str = "train") -> Scene:
    """Draw scene `index` of the endless sequence that belongs to `seed`.

    Parameters
    ----------
    split : {"train", "held_out", "all"}
        Which (colour, shape, count) triples may occur.
    """
    rng = np.random.default_rng((seed, index))
    while True:
        colour = str(rng.choice(list(COLOURS)))
        shape = str(rng.choice(SHAPES))
        count = int(rng.choice(COUNTS))
        if split == "all" or is_held_out(colour, shape, count) == (split == "held_out"):
            break
    return Scene(
        colour=colour,
        shape=shape,
        count=count,
        tempo=str(rng.choice(list(TEMPI))),
        start=float(rng.uniform(*START_RANGE)),
        peak=float(rng.uniform(*PEAK_RANGE)),
        places=_places(rng, count),
    )


def make_scene(colour: str, shape: str, count: int, tempo: str, start: float, seed: int) -> Scene:
    """A scene of these attributes, whose loudness and places follow from `seed`."""
    rng = np.random.default_rng(seed)
    return Scene(colour, shape, count, tempo, start, float(rng.uniform(*PEAK_RANGE)), _places(rng, count))


def retimed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same objects, which appear at another time and in another tempo."""
    return dataclasses.replace(scene, tempo=str(rng.choice(list(TEMPI))), start=float(rng.uniform(*START_RANGE)))


def _places(rng: np.random.Generator, count: int) -> tuple[tuple[int, int, int], ...]:
    while True:  # start afresh if there is no room for the last object
        places: list[tuple[int, int, int]] = []
        for _ in range(count):
            size = int(rng.integers(SIZE_RANGE[0], SIZE_RANGE[1] + 1))
            for _ in range(20):
                left, top = (int(v) for v in rng.integers(_GAP, IMAGE_SIZE - size - _GAP + 1, 2))
                if all(
                    left + size + _GAP <= other_left
                    or other_left + other + _GAP <= left
                    or top + size + _GAP <= other_top
                    or other_top + other + _GAP <= top
                    for other_left, other_top, other in places
                ):
                    places.append((left, top, size))
                    break
        if len(places) == count:
            return tuple(places)
