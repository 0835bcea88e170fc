"""Networks that predict v, in a diffuser that returns the noise."""

import dataclasses

import pytest
import tiny
import torch

from codi_backend.models.diffuser import Diffuser
from codi_backend.models.noise_schedule import add_noise, alphas_cumprod, eps_from_v


@pytest.mark.parametrize("kind", [torch.int64, torch.float32])
def test_eps_from_v(kind):
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 4, 8, 8, generator=generator)
    when = torch.tensor([0, 1, 500, 998, 999])
    noisy = add_noise(clean, noise, when, alphas_cumprod())
    a = alphas_cumprod()[when].reshape(-1, 1, 1, 1)
    v = a.sqrt() * noise - (1 - a).sqrt() * clean
    torch.testing.assert_close(eps_from_v(v, noisy, when.to(kind)), noise, atol=1e-5, rtol=0)


def test_between_timesteps():
    noisy, v = torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 1, 1)
    low, middle, high = (float(eps_from_v(v, noisy, torch.tensor([t]))[0, 0, 0, 0]) for t in (400.0, 400.5, 401.0))
    assert low < middle < high


def test_the_diffuser_returns_noise():
    torch.manual_seed(0)
    as_v = Diffuser(dataclasses.replace(tiny.CONFIG.diffuser, prediction="v"))
    as_eps = Diffuser(tiny.CONFIG.diffuser)
    as_eps.load_state_dict(as_v.state_dict())
    x, when, context = {"image": torch.randn(2, 4, 8, 8)}, torch.tensor([10, 900]), torch.zeros(2, 1, 32)
    with torch.no_grad():
        v, noise = as_eps(x, when, context)["image"], as_v(x, when, context)["image"]
    torch.testing.assert_close(noise, eps_from_v(v, x["image"], when))
    assert not torch.allclose(noise, v)
