"""Resampling by torch alone, between any rates."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi_backend.models.autoencoders.audio_dsp import resample

pytestmark = [pytest.mark.audio, pytest.mark.property]
RATES = st.integers(2000, 200_000)
SAMPLES = 64  # at the lower rate
EDGE = 8  # samples beyond which a filter lies within the tone


@pytest.fixture(scope="module", autouse=True)
def alone(audio_library):
    """Runs with torchaudio, too, if it is installed."""


@given(RATES, RATES, st.floats(0.01, 0.25), st.floats(0, 6.3))
def test_a_tone_stays_that_tone(rate, target, frequency, phase):
    low = min(rate, target)
    hertz = frequency * low
    count = math.ceil(SAMPLES * rate / low)
    times = torch.arange(count, dtype=torch.float64) / rate
    got = resample((2 * math.pi * hertz * times + phase).sin().float(), rate, target)
    assert abs(len(got) - count * target / rate) <= 1
    times = torch.arange(len(got), dtype=torch.float64) / target
    inner = (times * low > EDGE) & (times * low < SAMPLES - EDGE)
    expected = (2 * math.pi * hertz * times + phase).sin().float()
    assert inner.sum() >= SAMPLES - 2 * EDGE - 2
    torch.testing.assert_close(got[inner], expected[inner], atol=0.01, rtol=0)


@given(RATES, RATES, st.integers(0, 300))
def test_any_length(rate, target, count):
    got = resample(torch.ones(2, 1, count), rate, target)
    assert got.shape[:2] == (2, 1) and got.isfinite().all()
    assert abs(got.shape[-1] - math.ceil(count * target / rate)) <= 1
