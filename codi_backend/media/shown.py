"""What the two sources of videos, `film` and `animation`, give."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

FRAME_SIDE = 512  # pixels; short sides above that hold nothing that a model would see, and much memory


class Shown(NamedTuple):
    """A frame: when it appears and goes, in seconds from time 0, and how to get its pixels ``[3, H, W]`` in 0..1."""

    since: float
    until: float
    pixels: Callable[[], Tensor]


def reduced_size(width: int, height: int) -> tuple[int, int]:
    """The size at which frames are read."""
    shrink = min(1.0, FRAME_SIDE / min(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))
