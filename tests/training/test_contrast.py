"""InfoNCE between embeddings and between moments."""

import math

import pytest
import torch
from torch.nn import functional as F

from codi_backend.training.contrast import Contrast, TimeContrast


def eight_moments(samples=1):
    """Tokens of 8 moments that differ from one another, the same in every sample, beside constant channels."""
    moments = torch.eye(8).repeat(samples, 1, 1)
    return torch.cat([moments, torch.ones_like(moments)], -1)


@torch.no_grad()
def test_moments_differ_from_others_of_the_sample():
    contrast, tokens = TimeContrast(), eight_moments()
    assert float(contrast(tokens, tokens)) < 0.01 < 2.5 < float(contrast(tokens, tokens.flip(1)))
    # Tokens without moments give chance. A single sample has no negatives from other samples.
    assert float(contrast(torch.ones(1, 8, 16), tokens)) == pytest.approx(math.log(8) / 2, abs=1e-3)
    fine = tokens.repeat_interleave(2, 1)
    assert float(contrast(fine, tokens)) < 0.1


@torch.no_grad()
def test_moments_differ_from_the_same_of_other_samples():
    contrast = TimeContrast()
    alike = eight_moments(samples=4)  # as if moments encoded the number of the time step only
    assert float(contrast(alike, alike)) == pytest.approx(math.log(4) / 2, abs=1e-3)
    signed = alike * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    assert float(contrast(signed, signed)) == pytest.approx(math.log(2) / 2, abs=1e-2)


def test_contrast_of_equal_captions():
    contrast = Contrast()
    a = F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=-1)[[0, 1, 2, 0]]
    labels = ["x", "y", "z", "x"]
    # Of two positives each has probability 1/2.
    assert contrast(a, a, labels).item() == pytest.approx(0.5 * 0.6931, abs=0.01)
    torch.testing.assert_close(contrast(a[:3], a[:3], labels[:3]), contrast(a[:3], a[:3]))


def test_contrast():
    contrast = Contrast()
    a = F.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    matched, shuffled = contrast(a, a), contrast(a, a.roll(1, 0))
    assert matched.item() < 0.1 < 5 < shuffled.item()
    b = F.normalize(a + 0.5, dim=-1)
    torch.testing.assert_close(contrast(a, b), contrast(b, a))
    expected = F.cross_entropy(a @ a.T / 0.07, torch.arange(6))
    torch.testing.assert_close(matched, expected)
