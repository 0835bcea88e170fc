"""Colour matching of images."""

import pytest
import torch


def make_images(count=1, channels=3, scale=0.5, seed=0):
    return scale * torch.rand(count, 16, 24, channels, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def match(run_node):
    def call(image, reference, method="simple", strength=1.0):
        inputs = {"image": image, "reference": reference, "method": method, "strength": strength}
        return run_node("CoDiColourMatch", **inputs)[0]

    return call


@pytest.mark.parametrize("method", ["simple", "histogram"])
def test_a_batch_gets_the_colours_of_one_reference_or_of_its_own(match, method):
    images, references = make_images(2), make_images(2, scale=0.9, seed=1) * torch.tensor([1.0, 0.5, 0.2])
    for reference in (references, references[:1]):
        out = match(images, reference, method)
        assert out.shape == images.shape and 0 <= out.min() and out.max() <= 1
        torch.testing.assert_close(out.mean((1, 2)), reference.mean((1, 2)).expand(2, -1), atol=0.01, rtol=0)
    torch.testing.assert_close(match(images, references, method, strength=0.0), images)
    full, half = match(images, references, method), match(images, references, method, strength=0.5)
    unclipped = (full > 0) & (full < 1)
    torch.testing.assert_close(half[unclipped], (images + full)[unclipped] / 2)


def test_transparency_stays_and_is_no_colour(match):
    image = make_images(channels=4)
    out = match(image, make_images(seed=1, scale=0.9, channels=4))
    assert torch.equal(out[..., 3], image[..., 3])
    torch.testing.assert_close(out[..., :3], match(image[..., :3], make_images(seed=1, scale=0.9, channels=4)[..., :3]))


@pytest.mark.parametrize(
    ("image", "reference", "method", "sentence"),
    [
        (make_images(channels=2), make_images(), "simple", "^image: this is of shape .*; connect images"),
        (make_images(), make_images()[0], "simple", r"^reference: this is of shape .*; connect images"),
        (make_images(0), make_images(), "simple", "^image: there is no image in this; connect at least one"),
        (make_images() / 0, make_images(), "simple", "^image: .* not finite"),
        (make_images(3), make_images(2), "simple", "^reference: 2 references do not match 3 images; connect one"),
        (make_images(), make_images(), "wavelet", "^method: there is no 'wavelet'; choose from simple, histogram"),
    ],
)
def test_bad_input(match, image, reference, method, sentence):
    with pytest.raises(ValueError, match=sentence):
        match(image, reference, method)
