"""Animated emoji as videos of the small model's length."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..world import FRAME_RATE, FRAMES
from .archives import members
from .concepts import key_of
from .styles import on_white

_SHORTEST = 0.011  # seconds; browsers show frames for 0.1 s where files ask for less


def animations(
    archive: Path, keys: Collection[str], size: int
) -> Iterator[tuple[str, Callable[[], list[Image.Image]]]]:
    """Keys, and how to get the frames of `size` pixels, of the animations in an archive; stills are left out.

    Frames are at the frame rate of the small model; the animation loops until the video ends.
    """

    def wanted(name: str) -> bool:
        return name.endswith(".webp") and key_of(name.rpartition("/")[2][:-5]) in keys

    for name, content in members(archive, wanted):
        image = Image.open(io.BytesIO(content))
        if getattr(image, "n_frames", 1) > 1:
            yield key_of(name.rpartition("/")[2][:-5]), partial(_frames, image, size)


def _frames(image: Image.Image, size: int) -> list[Image.Image]:
    begins, drawn, end = [], [], 0.0
    for index in range(image.n_frames):
        image.seek(index)
        image.load()  # which reads the duration
        begins.append(end)
        seconds = image.info.get("duration", 0) / 1000
        end += seconds if seconds >= _SHORTEST else 0.1
        drawn.append(image.copy())  # going back would decode the animation from its beginning
    moments = (np.arange(FRAMES) / FRAME_RATE + 1e-6) % end
    rows = np.searchsorted(begins, moments, side="right") - 1
    return [on_white(drawn[row], size) for row in rows.tolist()]
