"""Scenes as images and videos."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageDraw

from .world import BACKGROUND, COLOURS, FRAME_RATE, FRAMES, IMAGE_SIZE, Scene

_OVERSAMPLING = 8


def render_image(scene: Scene) -> np.ndarray:
    """Draw all objects of a scene: float32 ``[64, 64, 3]`` in 0..1."""
    return _draw(scene, scene.count)


def render_video(scene: Scene) -> np.ndarray:
    """Draw the video, in which each object is visible from its onset on: float32 ``[16, 64, 64, 3]`` in 0..1."""
    visible = visible_objects(scene)
    stills = {n: _draw(scene, n) for n in set(visible)}
    return np.stack([stills[n] for n in visible])


def visible_objects(scene: Scene) -> list[int]:
    """The number of visible objects in each frame of the video; every number from none to all of them occurs."""
    return [sum(onset <= frame / FRAME_RATE for onset in scene.onsets) for frame in range(FRAMES)]


def _draw(scene: Scene, visible: int) -> np.ndarray:
    image = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    image[:] = np.float32(BACKGROUND) / 255
    colour = np.float32(COLOURS[scene.colour]) / 255
    for left, top, size in scene.places[:visible]:
        window = image[top : top + size, left : left + size]
        window += shape_mask(scene.shape, size)[..., None] * (colour - window)
    return image


@functools.cache
def shape_mask(shape: str, size: int) -> np.ndarray:
    """Coverage of each pixel by a shape that fills a box of `size` pixels: float32 ``[size, size]`` in 0..1."""
    big = size * _OVERSAMPLING
    canvas = Image.new("L", (big, big))
    draw = ImageDraw.Draw(canvas)
    if shape == "circle":
        draw.ellipse((0, 0, big - 1, big - 1), fill=255)
    else:
        draw.polygon([(x * (big - 1), y * (big - 1)) for x, y in _outline(shape)], fill=255)
    covered = np.asarray(canvas, np.float32).reshape(size, _OVERSAMPLING, size, _OVERSAMPLING)
    return covered.mean((1, 3)) / 255


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners in the unit square, y downwards."""
    if shape == "square":
        return [(0, 0), (1, 0), (1, 1), (0, 1)]
    if shape == "triangle":
        return [(0.5, 0), (1, 1), (0, 1)]
    if shape == "cross":
        a, b = 1 / 3, 2 / 3
        return [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
    if shape == "star":
        angles = [math.pi * i / 5 for i in range(10)]
        return _fit([(r * math.sin(t), -r * math.cos(t)) for t, r in zip(angles, [1, 0.42] * 5)])
    angles = [2 * math.pi * i / 60 for i in range(60)]  # heart
    return _fit(
        [
            (16 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)))
            for t in angles
        ]
    )


def _fit(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    xs, ys = zip(*points)
    return [((x - min(xs)) / (max(xs) - min(xs)), (y - min(ys)) / (max(ys) - min(ys))) for x, y in points]
