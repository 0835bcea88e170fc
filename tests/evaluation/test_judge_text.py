"""The judge of texts against captions whose attributes are known."""

import dataclasses

import numpy as np
import pytest

from codi_backend.data import sample_scene
from codi_backend.data.captions import ATTRIBUTES, caption
from codi_backend.evaluation.judges import JudgedText, judge_text


def test_captions():
    """Every subset of attributes, in many wordings."""
    rng = np.random.default_rng(0)
    for i, scene in enumerate(sample_scene(5, i, "all") for i in range(400)):
        stated = tuple(a for bit, a in enumerate(ATTRIBUTES) if i >> bit & 1)
        text = caption(scene, stated, rng)
        judged = dataclasses.asdict(judge_text(text))
        assert judged == {a: getattr(scene, a) if a in stated else None for a in ATTRIBUTES}, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (None, None, None, None)),
        ("Three RED stars; slowly!", ("red", "star", 3, "slow")),
        ("a picture of an orange cross", ("orange", "cross", 1, None)),
        ("the sound of a heart", (None, "heart", 1, None)),
        ("red and blue stars", (None, "star", None, None)),
        ("two red stars, two", ("red", "star", 2, None)),
        ("two three red circles circle", ("red", "circle", None, None)),
        ("squares or hearts, quickly, slowly", (None, None, None, None)),
        ("reddish starry oneness", (None, None, None, None)),
    ],
)
def test_wordings(text, expected):
    assert judge_text(text) == JudgedText(*expected)
