"""The noise schedule, the forward process and the streams' noise."""

import json
from pathlib import Path

import pytest
import torch

from codi_backend.models.noise_schedule import add_noise, alphas_cumprod
from codi_backend.sampling.noise import mean_latent, step_generators, stream_noise

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "schedule.json").read_text())
SHAPE = (3, 4, 8, 8)


def test_schedule_is_that_of_the_original():
    alphas = alphas_cumprod()
    assert (alphas.shape, alphas.dtype) == ((1000,), torch.float32)
    for step, value in GOLDEN["alphas_cumprod"].items():
        assert alphas[int(step)] == pytest.approx(value, rel=2e-6)


def test_forward_process_keeps_the_variance():
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 20000, generator=generator).split(1)
    alphas, timesteps = alphas_cumprod(), torch.tensor([0, 500, 999])
    noisy = add_noise(latents[0], noise[0], timesteps, alphas)
    for i, a in enumerate(alphas[timesteps]):
        torch.testing.assert_close(noisy[i], a.sqrt() * latents[0, i] + (1 - a).sqrt() * noise[0, i])
        assert noisy[i].std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 8, 8), (2, 4, 3, 8, 8)])
def test_every_sample_has_its_own_timestep(shape):
    noisy = add_noise(torch.ones(shape), torch.zeros(shape), torch.tensor([0, 999]), alphas_cumprod())
    for row, step in zip(noisy, ("0", "999")):
        torch.testing.assert_close(row, torch.full(shape[1:], GOLDEN["alphas_cumprod"][step] ** 0.5))


MEANS = {"image": (1.0, 2.0, 3.0), "text": (4.0, 5.0)}


@pytest.mark.parametrize(
    ("name", "latent"),
    [("image", (2, 3, 4, 4)), ("text", (2, 2)), ("video", (2, 3, 5, 4, 4)), ("audio", (2, 8, 6, 4))],
)
def test_mean_latents_are_of_channels(name, latent):
    """They fit a latent of any size; what is not known is 0."""
    shift = torch.zeros(latent) + mean_latent(MEANS, name)
    assert shift.shape == latent
    for channel, values in enumerate(shift.unbind(1)):
        assert (values == MEANS.get(name, (0.0,) * 8)[channel]).all()


def test_noise_is_standard_normal():
    noise = stream_noise((50, 4, 16, 16), 0, "image")
    assert noise.dtype == torch.float32
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_noise_follows_from_the_seed():
    assert torch.equal(stream_noise(SHAPE, 5, "image"), stream_noise(SHAPE, 5, "image"))


def test_a_larger_batch_keeps_the_noise_of_the_first():
    assert torch.equal(stream_noise((9, *SHAPE[1:]), 5, "audio")[:3], stream_noise(SHAPE, 5, "audio"))
    assert torch.equal(stream_noise((1, *SHAPE[1:]), 5, "audio", first=2), stream_noise(SHAPE, 5, "audio")[2:])


def test_seeds_streams_and_samples_never_share_noise():
    rows = [
        row
        for seed in (0, 1, 2, 16, 256, 257, 4096, 2**32 - 1)
        for name in ("text", "image", "video", "audio")
        for row in stream_noise((4, 6), seed, name)
    ]
    assert len(torch.unique(torch.stack(rows), dim=0)) == len(rows) == 128


def test_noise_depends_on_nothing_global():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = stream_noise(SHAPE, 1, "image")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(stream_noise(SHAPE, 1, "image"), first)


def test_the_noise_of_steps_is_each_samples_own():
    def draw(generators):
        return torch.stack([torch.randn(4000, generator=g) for g in generators])

    steps = step_generators(3, 5, "audio")
    first, second = draw(steps), draw(steps)
    assert first.std() == pytest.approx(1, abs=0.05)
    rows = torch.cat([stream_noise((3, 4000), 5, "audio"), first, second, draw(step_generators(3, 5, "image"))])
    correlation = rows.corrcoef() - torch.eye(len(rows))
    assert correlation.abs().max() < 0.1
    fewer = step_generators(2, 5, "audio")
    assert torch.equal(draw(fewer), first[:2]) and torch.equal(draw(fewer), second[:2])


def test_unknown_stream():
    with pytest.raises(ValueError, match="no modality 'smell'; choose from text, image, video, audio"):
        stream_noise(SHAPE, 0, "smell")
