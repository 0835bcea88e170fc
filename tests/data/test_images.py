"""Images and videos of scenes."""

import numpy as np
import pytest
from scipy import ndimage

from codi_backend.data import Scene, sample_scene
from codi_backend.data.images import render_image, render_video
from codi_backend.data.world import BACKGROUND, COLOURS, SHAPES

SCENES = [sample_scene(5, i, "all") for i in range(40)]
SKY = np.float32(BACKGROUND) / 255


def objects(image):
    return ndimage.label(np.abs(image - SKY).max(-1) > 0.01, np.ones((3, 3)))[1]


def coverage(image, colour):
    """How much of each pixel an object covers; fails where a pixel mixes anything but background and colour."""
    paint = np.float32(COLOURS[colour]) / 255 - SKY
    share = (image - SKY) @ paint / (paint @ paint)
    assert np.abs(image - SKY - share[..., None] * paint).max() < 1e-6
    return share


def test_layout():
    image, video = render_image(SCENES[0]), render_video(SCENES[0])
    assert (image.shape, image.dtype) == ((64, 64, 3), np.float32)
    assert (video.shape, video.dtype) == ((16, 64, 64, 3), np.float32)


def test_only_background_and_the_colour():
    for scene in SCENES:
        share = coverage(render_image(scene), scene.colour)
        assert share.min() == 0 and share.max() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("colour", COLOURS)
def test_fill_is_exactly_the_colour(colour):
    image = render_image(Scene(colour, "square", 1, "slow", 0.2, 0.5, ((20, 30, 13),)))
    assert np.array_equal((image * 255).round().astype(int)[31:42, 21:32], np.full((11, 11, 3), COLOURS[colour]))
    assert np.array_equal(image[0, 0], SKY)


@pytest.mark.parametrize(
    ("shape", "area"), [("square", 1), ("circle", np.pi / 4), ("triangle", 1 / 2), ("cross", 5 / 9), ("star", 0.35)]
)
def test_area(shape, area):
    share = coverage(render_image(Scene("red", shape, 1, "slow", 0.2, 0.5, ((20, 30, 19),))), "red")
    assert share.sum() / 19**2 == pytest.approx(area, abs=0.04)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_box(shape):
    covered = coverage(render_image(Scene("red", shape, 1, "slow", 0.2, 0.5, ((20, 30, 15),))), "red") > 0
    assert np.array_equal(np.flatnonzero(covered.any(0)), np.arange(20, 35))
    assert np.array_equal(np.flatnonzero(covered.any(1)), np.arange(30, 45))


def test_shapes_differ():
    stills = [render_image(Scene("red", s, 1, "slow", 0.2, 0.5, ((20, 30, 15),))) for s in SHAPES]
    for i, a in enumerate(stills):
        assert all(np.abs(a - b).max(-1).sum() > 10 for b in stills[:i])


def test_count():
    assert all(objects(render_image(scene)) == scene.count for scene in SCENES)


def test_objects_appear_at_their_onsets():
    for scene in SCENES:
        seen = [objects(frame) for frame in render_video(scene)]
        assert seen == [sum(onset <= i / 6.25 for onset in scene.onsets) for i in range(16)]
        assert seen[0] == 0


def test_video_ends_with_the_image():
    assert all(np.array_equal(render_video(scene)[-1], render_image(scene)) for scene in SCENES)
