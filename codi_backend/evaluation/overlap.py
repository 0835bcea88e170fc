"""Overlap of the objects in two images."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.world import BACKGROUND
from .judges.common import finite
from .judges.image import coverage_of


def overlap(one: Any, other: Any) -> float:
    """Intersection over union of covered pixels of two images ``[3, H, W]``, in any colour; 1 if both are blank."""
    first, second = (_covered(image) for image in (one, other))
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def _covered(image: Any) -> np.ndarray:
    pixels = finite(image, "image").clip(0, 1).transpose(1, 2, 0)
    return coverage_of(pixels - np.array(BACKGROUND, np.float32) / 255) > 0.5
