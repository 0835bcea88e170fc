"""The image autoencoder."""

import pytest
import torch
from tiny import CONFIG

from codi_backend.models.autoencoders import ImageAutoencoder


@pytest.fixture(scope="module")
def autoencoder(codi):
    return codi.autoencoders["image"]


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_shapes(autoencoder, pixels):
    latents = autoencoder.encode(pixels)
    assert latents.shape == (2, 4, 8, 6)
    decoded = autoencoder.decode(latents)
    assert decoded.shape == pixels.shape
    assert 0 <= decoded.min() and decoded.max() <= 1


@torch.no_grad()
def test_decoding_clamps(autoencoder, pixels):
    latents = 50 * autoencoder.encode(pixels)
    raw, decoded = autoencoder.reconstruct(latents), autoencoder.decode(latents)
    assert raw.abs().max() > 1 and 0 <= decoded.min() and decoded.max() <= 1
    assert torch.equal(decoded, (raw / 2 + 0.5).clamp(0, 1))


def test_patches_fold_and_unfold(pixels, echo):
    autoencoder = ImageAutoencoder(CONFIG.image_autoencoder)
    autoencoder.vae = echo
    folded = autoencoder.encode(pixels)
    assert folded.shape == (2, 12, 32, 24)
    assert folded.min() < -0.9 and folded.max() > 0.9
    torch.testing.assert_close(autoencoder.decode(folded), pixels)


@torch.no_grad()
def test_encoding_is_deterministic(autoencoder, pixels):
    assert torch.equal(autoencoder.encode(pixels), autoencoder.encode(pixels))


@torch.no_grad()
def test_samples_follow_from_the_generator(autoencoder, pixels):
    def encode(seed):
        return autoencoder.encode(pixels, torch.Generator().manual_seed(seed))

    assert torch.equal(encode(0), encode(0))
    assert not torch.equal(encode(0), encode(1))
    assert not torch.equal(encode(0), autoencoder.encode(pixels))


@pytest.mark.parametrize("size", [(60, 64), (64, 60)])
def test_size_must_be_a_multiple(autoencoder, size):
    with pytest.raises(ValueError, match=f"{size[1]} x {size[0]} pixels.*multiples of 8"):
        autoencoder.encode(torch.zeros(1, 3, *size))


def test_trains(pixels):
    autoencoder = ImageAutoencoder(CONFIG.image_autoencoder)
    posterior = autoencoder.posterior(pixels)
    autoencoder.reconstruct(posterior.sample()).abs().mean().backward()
    assert all(p.grad.any() for p in autoencoder.parameters() if p.ndim == 4)
