"""How much two pictures show in the same places."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.world import BACKGROUND
from .judges.common import finite
from .judges.images import coverage_of


def overlap(one: Any, other: Any) -> float:
    """Of what either picture ``[3, H, W]`` covers, the share that both do, in whatever colour; 1 for two blank ones."""
    first, second = (_covered(picture) for picture in (one, other))
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def _covered(picture: Any) -> np.ndarray:
    pixels = finite(picture, "picture").clip(0, 1).transpose(1, 2, 0)
    return coverage_of(pixels - np.array(BACKGROUND, np.float32) / 255) > 0.5
