"""Colour adjustment against the original's two programs, and what it must do beyond them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codi_backend.media.colour_match import METHODS, match_colour

GOLDEN = load_file(Path(__file__).parents[1] / "golden/versatile/color_adjust.safetensors")
IMAGE, REFERENCE = GOLDEN["in/output"][None], GOLDEN["in/reference"][None]


def test_golden_of_the_application():
    torch.testing.assert_close(match_colour(IMAGE, REFERENCE)[0], GOLDEN["out/simple"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("method", "name"), [("mean_std", "simple"), ("histogram", "full")])
def test_golden_of_the_older_script(method, name):
    # The script computes in double precision, on images of 8 bits.
    image, reference = ((x.double() * 255).floor() / 255 for x in (IMAGE, REFERENCE))
    adjusted = (match_colour(image, reference, method, strength=0.5)[0] * 255).byte().permute(1, 2, 0)
    assert torch.equal(adjusted, GOLDEN[f"out/deprecated_{name}_keep05_uint8_hwc"])


def test_mean_and_spread_become_the_references_whatever_its_size():
    wide = torch.nn.functional.interpolate(REFERENCE, (40, 60))
    matched = match_colour(IMAGE.double(), wide)
    inside = (matched > 0) & (matched < 1)
    assert inside.double().mean() > 0.95
    torch.testing.assert_close(matched.mean((2, 3)), wide.double().mean((2, 3)), atol=2e-3, rtol=0)
    torch.testing.assert_close(matched.std((2, 3)), wide.double().std((2, 3)), atol=5e-3, rtol=0)


def test_histogram_brings_the_quantiles_where_mean_and_spread_do_not():
    # Half black, half white, against an even ramp: mean and variance do not separate them well.
    image = torch.linspace(0.2, 0.5, 64 * 64).reshape(1, 1, 64, 64).repeat(1, 3, 1, 1)
    reference = (torch.linspace(0, 1, 64 * 64) ** 3).reshape(1, 1, 64, 64).repeat(1, 3, 1, 1)
    shares = torch.linspace(0.05, 0.95, 19)
    wanted = reference.flatten().quantile(shares)
    error = {m: (match_colour(image, reference, m).flatten().quantile(shares) - wanted).abs().max() for m in METHODS}
    assert error["histogram"] < 0.01 < 0.1 < error["mean_std"]


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_matched_one_by_one(method):
    images = torch.cat([IMAGE, IMAGE.flip(1)])
    references = torch.cat([REFERENCE, 1 - REFERENCE])
    for given in (references, REFERENCE):
        alone = torch.cat([match_colour(a[None], b[None], method) for a, b in zip(images, given.expand(2, -1, -1, -1))])
        torch.testing.assert_close(match_colour(images, given, method), alone)


@pytest.mark.parametrize("method", METHODS)
def test_strength_zero_changes_nothing_and_one_colour_throughout_is_no_problem(method):
    torch.testing.assert_close(match_colour(IMAGE, REFERENCE, method, 0.0), IMAGE)
    grey = torch.full_like(IMAGE, 0.5)
    mean = REFERENCE.mean((2, 3), keepdim=True).expand_as(grey)
    torch.testing.assert_close(match_colour(grey, REFERENCE).float(), mean)
    assert match_colour(grey, REFERENCE, method).isfinite().all()
    torch.testing.assert_close(match_colour(IMAGE, grey, method), grey, atol=2e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_precision_is_kept(method):
    matched = match_colour(IMAGE.half(), REFERENCE.half(), method)
    assert matched.dtype == torch.float16
    torch.testing.assert_close(matched.float(), match_colour(IMAGE, REFERENCE, method), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("images", "reference", "method", "strength", "message"),
    [
        (IMAGE[:, :1], REFERENCE, "mean_std", 1.0, r"the images have shape \[1, 1, 24, 24\]"),
        (IMAGE, REFERENCE[0], "mean_std", 1.0, r"the reference have shape \[3, 24, 24\]"),
        (IMAGE, REFERENCE[..., :0], "mean_std", 1.0, "the reference have shape"),
        (IMAGE.repeat(3, 1, 1, 1), REFERENCE.repeat(2, 1, 1, 1), "mean_std", 1.0, "3 images and 2 references"),
        (IMAGE / 0, REFERENCE, "mean_std", 1.0, "not finite"),
        (IMAGE, REFERENCE, "wavelet", 1.0, "no colour matching 'wavelet'; choose from mean_std, histogram"),
        (IMAGE, REFERENCE, "mean_std", 1.5, "strength: 1.5 is out of range; choose a number from 0 to 1"),
    ],
)
def test_what_is_not_possible_is_reported(images, reference, method, strength, message):
    with pytest.raises(ValueError, match=message):
        match_colour(images, reference, method, strength)
