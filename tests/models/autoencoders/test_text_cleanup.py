"""Post-processing of generated texts against the released code's outputs (SPEC section 5.3)."""

import json

import pytest
from published import GOLDEN

from codi_backend.models.autoencoders.text_cleanup import close_up, drop_repeats

CASES = json.loads((GOLDEN / "text_postprocess.json").read_text())


@pytest.mark.parametrize("text", CASES)
def test_released_cases(text):
    assert drop_repeats(text) == CASES[text]


def test_repeats_of_repeats():
    assert drop_repeats("a b a b c a b c " * 3) == "a b c"


def test_spaces_before_punctuation():
    apart = "it 's a dog , is n't it ? I 'm sure ! We 've seen , they 're here ."
    assert close_up(apart) == "it's a dog, isn't it? I'm sure! We've seen, they're here."
    assert close_up("rock ' n ' roll") == "rock'n'roll"
