"""The world's constants and rules."""

import itertools

import pytest

from codi_backend.data import is_held_out, make_scene, sample_scene
from codi_backend.data.world import (
    BACKGROUND,
    COLOURS,
    COUNTS,
    FRAME_RATE,
    FRAMES,
    IMAGE_SIZE,
    PEAK_RANGE,
    PITCHES,
    SAMPLE_RATE,
    SAMPLES,
    SHAPES,
    SIZE_RANGE,
    START_RANGE,
    TEMPI,
    TIMBRES,
)

TRIPLES = list(itertools.product(COLOURS, SHAPES, COUNTS))


def triple(scene):
    return scene.colour, scene.shape, scene.count


def test_colours():
    assert COLOURS == {
        "red": (220, 40, 40),
        "orange": (240, 140, 30),
        "yellow": (235, 215, 50),
        "green": (50, 170, 70),
        "blue": (50, 90, 220),
        "purple": (150, 60, 190),
    }
    assert BACKGROUND == (245, 245, 245)


def test_pitches():
    assert PITCHES == {
        "red": 261.63,
        "orange": 293.66,
        "yellow": 329.63,
        "green": 392.00,
        "blue": 440.00,
        "purple": 523.25,
    }


def test_timbres():
    assert TIMBRES == {
        "circle": "sine",
        "square": "square wave",
        "triangle": "triangle wave",
        "star": "FM bell",
        "heart": "organ",
        "cross": "plucked string",
    }
    assert tuple(TIMBRES) == SHAPES


def test_sizes_and_times():
    assert (IMAGE_SIZE, SIZE_RANGE, COUNTS) == (64, (13, 19), (1, 2, 3, 4))
    assert (FRAMES, FRAME_RATE) == (16, 6.25)
    assert (SAMPLE_RATE, SAMPLES, PEAK_RANGE) == (16000, 40960, (0.3, 0.8))
    assert (TEMPI, START_RANGE) == ({"slow": 0.55, "fast": 0.25}, (0.10, 0.50))


def test_scenes_follow_from_seed_and_index():
    assert [sample_scene(3, i) for i in range(20)] == [sample_scene(3, i) for i in range(20)]
    assert len({sample_scene(seed, i) for seed in range(5) for i in range(20)}) == 100


def test_every_value_occurs_and_lies_in_its_range():
    scenes = [sample_scene(0, i, "all") for i in range(1500)]
    assert {triple(s) for s in scenes} == set(TRIPLES)
    assert {s.tempo for s in scenes} == set(TEMPI)
    assert {size for s in scenes for _, _, size in s.places} == set(range(13, 20))
    for attribute, (low, high) in {"start": START_RANGE, "peak": PEAK_RANGE}.items():
        values = [getattr(s, attribute) for s in scenes]
        assert low <= min(values) < low + 0.01 and high - 0.01 < max(values) <= high


def test_about_15_percent_of_the_triples_are_held_out():
    held_out = [t for t in TRIPLES if is_held_out(*t)]
    assert 0.14 < len(held_out) / len(TRIPLES) < 0.16
    for axis, values in enumerate((COLOURS, SHAPES, COUNTS)):
        assert {t[axis] for t in held_out} == set(values)


@pytest.mark.parametrize(("split", "held_out"), [("train", False), ("held_out", True)])
def test_splits_share_no_triple(split, held_out):
    triples = {triple(sample_scene(1, i, split)) for i in range(1500)}
    assert triples == {t for t in TRIPLES if is_held_out(*t) == held_out}


def test_objects_stay_inside_and_apart():
    for i in range(600):
        scene = sample_scene(2, i, "all")
        assert len(scene.places) == scene.count
        for left, top, size in scene.places:
            assert min(left, top) >= 0 and max(left, top) + size <= IMAGE_SIZE
        for (x, y, size), (other_x, other_y, other) in itertools.combinations(scene.places, 2):
            assert x + size < other_x or other_x + other < x or y + size < other_y or other_y + other < y


def test_onsets_are_spaced_by_the_tempo():
    for i in range(50):
        scene = sample_scene(4, i)
        assert scene.onsets[0] == scene.start and len(scene.onsets) == scene.count
        for a, b in itertools.pairwise(scene.onsets):
            assert b - a == pytest.approx(TEMPI[scene.tempo])


def test_scenes_to_order():
    scene = make_scene("blue", "heart", 3, "fast", 0.25, seed=7)
    assert (scene.colour, scene.shape, scene.count, scene.tempo, scene.start) == ("blue", "heart", 3, "fast", 0.25)
    assert scene == make_scene("blue", "heart", 3, "fast", 0.25, seed=7) and len(scene.places) == 3
    assert scene.places != make_scene("blue", "heart", 3, "fast", 0.25, seed=8).places
