"""Captions of scenes."""

import itertools
import re

import numpy as np
import pytest

from codi_backend.data import Scene, sample_scene
from codi_backend.data.captions import ATTRIBUTES, NUMBERS, PLURALS, caption, partial_caption
from codi_backend.data.world import COLOURS

SUBSETS = [subset for n in range(5) for subset in itertools.combinations(ATTRIBUTES, n)]
SINGULAR = {*PLURALS, "shape", "object", "thing"}
COUNT_WORDS = {word: n for n, word in NUMBERS.items()} | {"a": 1, "an": 1}
SHAPE_WORDS = {plural: shape for shape, plural in PLURALS.items()} | {shape: shape for shape in PLURALS}
THREE = Scene("red", "star", 3, "slow", 0.2, 0.5, ((3, 3, 13), (23, 3, 13), (43, 3, 13)))
ONE = Scene("orange", "cross", 1, "fast", 0.2, 0.5, ((3, 3, 13),))


def words(text):
    return re.findall("[a-z]+", re.sub("a picture of|the sound of|I see", "", text).lower())


def stated(text):
    """The attributes that a caption states."""
    found = {}
    for word in words(text):
        for attribute, vocabulary in {
            "colour": {c: c for c in COLOURS},
            "shape": SHAPE_WORDS,
            "count": COUNT_WORDS,
            "tempo": {"slowly": "slow", "quickly": "fast"},
        }.items():
            if word in vocabulary:
                assert attribute not in found, text
                found[attribute] = vocabulary[word]
    return found


def captions(attributes):
    rng = np.random.default_rng(0)
    scenes = [sample_scene(8, i, "all") for i in range(80)]
    return [(scene, caption(scene, attributes, rng)) for scene in scenes]


@pytest.mark.parametrize(
    ("scene", "attributes", "text"),
    [
        (THREE, ATTRIBUTES, "three red stars, slowly"),
        (ONE, ATTRIBUTES, "one orange cross, quickly"),
        (THREE, ("shape", "count"), "three stars"),
        (ONE, ("shape", "count"), "one cross"),
        (ONE, ("shape",), "crosses"),
        (ONE, ("colour",), "orange shapes"),
        (ONE, ("count",), "one shape"),
        (THREE, ("tempo",), "slowly"),
        (THREE, (), ""),
    ],
)
def test_plain_form(scene, attributes, text):
    assert caption(scene, attributes) == text


@pytest.mark.parametrize("attributes", SUBSETS)
def test_states_these_attributes_and_no_others(attributes):
    for scene, text in captions(attributes):
        assert stated(text) == {a: getattr(scene, a) for a in attributes}, text


@pytest.mark.parametrize("attributes", [s for s in SUBSETS if s not in ((), ("tempo",))])
def test_singular_only_for_one_that_is_stated(attributes):
    for scene, text in captions(attributes):
        assert bool(SINGULAR & {*words(text)}) == ("count" in attributes and scene.count == 1), text


def test_article_fits_the_word():
    texts = {text for _, text in captions(("colour", "shape", "count"))}
    assert any(re.search(r"\ba (red|blue|green|yellow|purple)", t) for t in texts)
    assert not any(re.search(r"\ban (?!orange)|\ba orange", t) for t in texts)


def test_wordings_vary():
    rng = np.random.default_rng(0)
    texts = {caption(THREE, ATTRIBUTES, rng) for _ in range(200)}
    assert "three red stars, slowly" in texts
    assert len(texts) >= 8


def test_wording_follows_from_the_generator():
    def many():
        rng = np.random.default_rng(3)
        return [partial_caption(sample_scene(8, i), rng) for i in range(30)]

    assert many() == many()


def test_attributes_are_left_out_as_often_as_asked():
    rng = np.random.default_rng(0)
    for leave_out in (0, 0.25, 1):
        found = [stated(partial_caption(sample_scene(8, i), rng, leave_out)) for i in range(800)]
        for attribute in ATTRIBUTES:
            share = np.mean([attribute not in s for s in found])
            assert share == pytest.approx(leave_out, abs=0.06 if 0 < leave_out < 1 else 0)
