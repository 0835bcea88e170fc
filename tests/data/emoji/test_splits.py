"""Held-out pairs and voices follow from names alone."""

import numpy as np
import pytest

from codi_backend.data.emoji.performances import INSTRUMENTS, performances
from codi_backend.data.emoji.speech import HELD_OUT, VOICES
from codi_backend.data.emoji.splits import choose, held_out_style, held_out_voices, share

STYLES = ("noto", "twemoji", "flat", "3d")


def test_shares_are_uniform_and_fixed():
    shares = np.array([share("a", i) for i in range(4000)])
    assert abs(shares.mean() - 0.5) < 0.02 and abs((shares < 0.1).mean() - 0.1) < 0.02
    assert share("style", "1f34e") == pytest.approx(0.9757611, abs=1e-6)  # also on other machines and Pythons


def test_choices_use_all_options():
    assert {choose("abc", "x", i) for i in range(50)} == set("abc")


def test_a_twentieth_of_concept_and_style_pairs_is_held_out():
    keys = [f"{i:x}" for i in range(2000)]
    held_out = [held_out_style(key, STYLES) for key in keys]
    assert 0.17 < np.mean([style is not None for style in held_out]) < 0.23
    counts = [held_out.count(style) for style in STYLES]
    assert min(counts) > 0.7 * max(counts)
    assert held_out == [held_out_style(key, STYLES[::-1]) for key in keys]


def test_a_concept_with_one_style_is_not_held_out():
    assert {held_out_style(f"{i:x}", ["noto"]) for i in range(200)} == {None}


def test_a_quarter_of_the_voices_is_held_out():
    names = [voice.name for voice in VOICES]
    assert len(held_out_voices(names)) == 2 < len(set(names)) == 8
    assert held_out_voices(names) == held_out_voices(names[::-1])
    held_out = {voice.words.rpartition(" ")[2] for voice in VOICES if voice.name in HELD_OUT}
    assert held_out == {"man", "woman"} and len(HELD_OUT) == 2


def test_held_out_performances():
    every = list(performances())
    assert 0.07 < np.mean([p.held_out for p in every]) < 0.13
    for instrument in INSTRUMENTS:
        those = [p for p in every if p.instrument is instrument]
        assert {p.count for p in those if not p.held_out} == {1, 2, 3, 4}
    assert len({p.name for p in every}) == len({p.caption for p in every}) == len(every)
