"""Colour, shape and count of the objects in an image."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ...data.images import shape_mask
from ...data.world import BACKGROUND, COLOURS, SHAPES, SIZE_RANGE
from .common import finite

# Lengths in pixels, colour differences as Euclidean distances in 0..1 RGB.
_BACKGROUND_TOLERANCE = 0.25
_SPECK = 15  # pixels; the smallest object, a star of size 13, covers 61
_MIN_OVERLAP = 0.65  # intersection over union; a well-smeared star has 0.7
_MIN_SQUARENESS = 0.65  # short side of the box over long side: all six shapes fill a square
_MAX_COLOUR_ANGLE = 12.0  # degrees; orange and yellow, the closest pair seen from the background, are 17 apart
_CANVAS = 29  # side of the window in which a mask and a template are compared
_MARGIN = 2  # of soft edge around an object
_EDGE_BLUR = 0.5  # the templates' edges, between the renderer's and an autoencoder's


@dataclass(frozen=True)
class JudgedObject:
    """One object of an image: colour (None when unlike all six), shape, box in pixels and overlap with the shape."""

    colour: str | None
    shape: str
    left: int
    top: int
    width: int
    height: int
    overlap: float


@dataclass(frozen=True)
class JudgedImage:
    """The attributes of an image; None where the judge cannot measure one.

    Attributes
    ----------
    colour, shape : str or None
        The value that more than half of the objects have.
    count : int or None
        Number of objects; None without objects, and with blobs.
    objects : tuple of JudgedObject
        From top to bottom.
    blobs : int
        Number of regions that are neither an object nor a speck, such as two merged objects.
    """

    colour: str | None
    shape: str | None
    count: int | None
    objects: tuple[JudgedObject, ...] = ()
    blobs: int = 0


def judge_image(pixels: Any) -> JudgedImage:
    """Measure colour, shape and count of the objects in an image.

    Parameters
    ----------
    pixels : array or tensor
        ``[3, H, W]``, RGB in 0..1; values a little outside are clipped.

    Raises
    ------
    ValueError
        If the image has another layout or values that are not finite.
    """
    image = finite(pixels, "image")
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"An image to judge must be [3, H, W], not {list(image.shape)}.")
    image = image.clip(0, 1).transpose(1, 2, 0)
    background = np.median(image.reshape(-1, 3), axis=0)
    if np.linalg.norm(background - np.array(BACKGROUND) / 255) > _BACKGROUND_TOLERANCE:
        return JudgedImage(None, None, None)

    difference = image - background
    coverage = coverage_of(difference)
    labels, _ = ndimage.label(coverage > 0.5)  # 4-connected: touching corners do not join objects
    objects, blobs = [], 0
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if np.count_nonzero(labels[box] == label) < _SPECK:
            continue
        judged = _judge_object(difference, coverage, labels, label, box)
        if judged is None:
            blobs += 1
        else:
            objects.append(judged)
    return JudgedImage(
        colour=_majority([o.colour for o in objects]),
        shape=_majority([o.shape for o in objects]),
        count=len(objects) if objects and not blobs else None,
        objects=tuple(objects),
        blobs=blobs,
    )


def _majority(names: Sequence[str | None]) -> str | None:
    """The name that more than half have; None counts as a name."""
    name, votes = Counter(names).most_common(1)[0] if names else (None, 0)
    return name if 2 * votes > len(names) else None


def coverage_of(difference: np.ndarray) -> np.ndarray:
    """Coverage of each pixel by the nearest colour: difference from the background ``[H, W, 3]`` -> ``[H, W]``.

    A soft edge mixes the colour with the background, so its difference has the direction of the colour.
    """
    directions, distances = _colour_directions()
    along = difference @ directions.T
    nearest = along.argmax(-1)
    return np.take_along_axis(along, nearest[..., None], -1)[..., 0] / distances[nearest]


@functools.cache
def _colour_directions() -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors ``[6, 3]`` from the background to each colour, and the distances ``[6]``."""
    vectors = (np.array(list(COLOURS.values())) - np.array(BACKGROUND)) / 255
    distances = np.linalg.norm(vectors, axis=1)
    return vectors / distances[:, None], distances


def _judge_object(
    difference: np.ndarray, coverage: np.ndarray, labels: np.ndarray, label: int, box: tuple[slice, slice]
) -> JudgedObject | None:
    """Judge one connected component; None if no template of a plausible size matches it."""
    rows, columns = box
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if max(height, width) + 2 * _MARGIN > _CANVAS or min(height, width) < _MIN_SQUARENESS * max(height, width):
        return None
    inside = labels[box] == label
    full = np.median(coverage[box][inside])
    # The component with its soft edge and without its neighbours is centred in the window.
    top, left = max(rows.start - _MARGIN, 0), max(columns.start - _MARGIN, 0)
    part = np.s_[top : rows.stop + _MARGIN, left : columns.stop + _MARGIN]
    mask = np.where(np.isin(labels[part], (0, label)), (coverage[part] / full).clip(0, 1), 0)
    row = (_CANVAS - height) // 2 - (rows.start - top)
    column = (_CANVAS - width) // 2 - (columns.start - left)
    window = np.zeros((_CANVAS, _CANVAS), np.float32)
    window[row : row + mask.shape[0], column : column + mask.shape[1]] = mask

    templates, areas, names = _templates()
    shared = np.minimum(templates, window.ravel()).sum(1)
    overlaps = shared / (areas + window.sum() - shared)
    best = int(overlaps.argmax())
    if overlaps[best] < _MIN_OVERLAP:
        return None

    solid = inside & (coverage[box] > 0.8 * full)
    mean = difference[box][solid].mean(0)
    directions, _ = _colour_directions()
    cosines = directions @ mean / np.linalg.norm(mean)
    nearest = int(cosines.argmax())
    near = cosines[nearest] > math.cos(math.radians(_MAX_COLOUR_ANGLE))
    return JudgedObject(
        colour=list(COLOURS)[nearest] if near else None,
        shape=names[best],
        left=columns.start,
        top=rows.start,
        width=width,
        height=height,
        overlap=float(overlaps[best]),
    )


@functools.cache
def _templates() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """All shapes in all sizes at all shifts of a pixel: masks ``[n, canvas * canvas]``, areas ``[n]`` and names."""
    masks, names = [], []
    for shape, size in itertools.product(SHAPES, range(SIZE_RANGE[0] - 1, SIZE_RANGE[1] + 2)):
        corner = (_CANVAS - size) // 2
        for down, right in itertools.product((-1, 0, 1), repeat=2):
            canvas = np.zeros((_CANVAS, _CANVAS), np.float32)
            top, left = corner + down, corner + right
            canvas[top : top + size, left : left + size] = shape_mask(shape, size)
            masks.append(ndimage.gaussian_filter(canvas, _EDGE_BLUR).ravel())
            names.append(shape)
    stack = np.stack(masks)
    return stack, stack.sum(1), tuple(names)
