"""Images, audio, masks, latents and embeddings as users give them."""

import numpy as np
import pytest
import torch

from codi_backend.checks.inputs import as_embedding_tokens, as_latent, as_mask, as_pixels, as_rate, as_samples


def same(got, *wanted):
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor(wanted), atol=1e-6, rtol=0)


def test_pixels_of_every_type():
    same(as_pixels(torch.tensor([0, 51, 255], dtype=torch.uint8), "x"), 0.0, 0.2, 1.0)
    same(as_pixels(torch.tensor([0, 13107, 65535]).to(torch.uint16), "x"), 0.0, 0.2, 1.0)
    same(as_pixels(torch.tensor([False, True]), "x"), 0.0, 1.0)
    same(as_pixels(np.array([0, 51, 255], np.uint8), "x"), 0.0, 0.2, 1.0)
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn):
        same(as_pixels(torch.tensor([0.0, 0.25, 1.0]).to(dtype), "x"), 0.0, 0.25, 1.0)


def test_pixels_that_are_right_are_not_copied():
    pixels = torch.rand(2, 3)
    assert as_pixels(pixels, "x") is pixels


def test_a_small_overshoot_is_left():
    same(as_pixels(torch.tensor([-0.1, 1.2]), "x"), -0.1, 1.2)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            torch.tensor([0.0, 255.0]),
            r"^The image holds values from 0 to 255, where 0 to 1 makes sense: .*divide 0\.\.",
        ),
        (torch.tensor([-1.0, 1.0]), r"^The image holds values from -1 to 1, .*halve -1\.\.1 and add 0\.5"),
        (torch.tensor([0.0, 16.0]).half(), "^The image holds values from 0 to 16, .*tone-map HDR"),
        (torch.tensor([0.0, torch.nan]), "^The image holds values that are not finite"),
        (torch.arange(3), "^The image is of type int64, whose range is not defined here: give uint8 or floats in 0..1"),
        (torch.tensor([1j]), "^The image is of type complex64"),
        ([0.5], "^The image is a list: give a tensor"),
        (None, "^The image is nothing: give a tensor"),
        (np.array(["a"]), "^The image is a ndarray: give a tensor|^The image is an ndarray"),
    ],
)
def test_what_are_no_pixels(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        as_pixels(values, "The image")


def test_masks_of_every_type():
    same(as_mask(torch.tensor([False, True]), "x"), 0.0, 1.0)
    same(as_mask(torch.tensor([0, 1]), "x"), 0.0, 1.0)
    same(as_mask(torch.tensor([0, 1], dtype=torch.uint8), "x"), 0.0, 1.0)
    same(as_mask(torch.tensor([0, 51, 255], dtype=torch.uint8), "x"), 0.0, 0.2, 1.0)
    same(as_mask(torch.tensor([-0.1, 0.5, 1.2]), "x"), -0.1, 0.5, 1.2)
    with pytest.raises(ValueError, match="^x holds integers from 0 to 255: give floats in 0..1, or 8 bits"):
        as_mask(torch.tensor([0, 255]), "x")
    with pytest.raises(ValueError, match="^x holds values from 0 to 255, where 0 to 1"):
        as_mask(torch.tensor([0.0, 255.0]), "x")


def test_samples_of_every_type():
    same(as_samples(torch.tensor([-32768, 0, 16384], dtype=torch.int16), "x"), -1.0, 0.0, 0.5)
    same(as_samples(torch.tensor([-(2**31), 0, 2**30], dtype=torch.int32), "x"), -1.0, 0.0, 0.5)
    same(as_samples(torch.tensor([0, 128, 192], dtype=torch.uint8), "x"), -1.0, 0.0, 0.5)
    same(as_samples(torch.tensor([-128, 0, 64], dtype=torch.int8), "x"), -1.0, 0.0, 0.5)
    same(as_samples(torch.tensor([-2.0, 0.5]).double(), "x"), -2.0, 0.5)  # mixes peak so


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            torch.tensor([1e30, 0.0]),
            r"^x holds values up to 1e\+30, where at most 100 makes sense: .*divide those of 16",
        ),
        (torch.tensor([-32768.0, 0.0]), r"^x holds values up to 3.28e\+04"),
        (torch.tensor([torch.inf]), "^x holds values that are not finite"),
        (torch.tensor([1, 2]), "^x is of type int64"),
        (torch.tensor([True]), "^x is of type bool"),
    ],
)
def test_what_are_no_samples(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        as_samples(values, "x")


def test_latents_and_embeddings():
    latent = torch.full((1, 4), 30.0, dtype=torch.bfloat16)
    assert as_latent(latent, "x") is latent
    assert as_embedding_tokens(latent[None], "x").shape == (1, 1, 4)
    for check in (as_latent, as_embedding_tokens):
        with pytest.raises(ValueError, match=r"^x holds values up to 1e\+30"):
            check(torch.full((1, 1, 4), 1e30), "x")
        with pytest.raises(ValueError, match="^x is of type int64"):
            check(torch.ones(1, 1, 4, dtype=torch.int64), "x")
    for shape in ((4,), (1, 4), (0, 1, 4), (1, 0, 4), (1, 1, 1, 4)):
        with pytest.raises(ValueError, match="^x is of shape .*: give embeddings"):
            as_embedding_tokens(torch.zeros(shape), "x")


def test_rates():
    assert [as_rate(rate) for rate in (44100, 44100.0, np.int32(44100), torch.tensor(44100), 44099.6)] == [44100] * 5
    for bad in (0, -8000, 8, torch.nan, 1e12, "44100", None):
        with pytest.raises(ValueError, match="^sample_rate: .* is out of range"):
            as_rate(bad)
