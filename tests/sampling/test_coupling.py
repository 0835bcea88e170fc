"""The correction by a coupler, noise levels of other models, and coupled sampling, against known distributions."""

import math

import pytest
import torch

from codi_backend.config.coupler import LatentSpace
from codi_backend.models.coupler import Tokens, match_spaces
from codi_backend.sampling.couple import CoupledStream, couple, karras_sigmas
from codi_backend.sampling.coupling import corrections
from codi_backend.sampling.noise_levels import ddpm_denoiser, flow_denoiser, from_diffusers

RHO = 0.9


class GaussianCoupler:
    """The exact log density ratio of two unit normal streams of correlation `RHO`, as a coupler."""

    spaces = tuple(LatentSpace(name, 1, "", (), (0.0,), 1.0) for name in "ab")

    def match(self, shapes):
        return match_spaces(self.spaces, shapes)

    def tokens(self, space, latents, sigma):
        return Tokens(latents, sigma[:, None].expand_as(latents))

    def score(self, a, b):
        x, y = a.pooled[:, 0], b.pooled[:, 0]
        va, vb = 1 + a.over_time[:, 0] ** 2, 1 + b.over_time[:, 0] ** 2
        rest = va * vb - RHO**2
        return -(vb * x**2 + va * y**2 - 2 * RHO * x * y) / (2 * rest) + x**2 / (2 * va) + y**2 / (2 * vb)


def unit_normal(x, sigma):
    """The denoised prediction of a standard normal."""
    return x / (1 + sigma**2)


def correlation(x, y):
    return float(torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1])


def test_the_correction_is_sigma_squared_times_the_gradient_of_the_log_ratio():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    with torch.inference_mode():
        found = corrections(GaussianCoupler(), [0, 1], [x, y], [0.5, 0.5], weight=3.0)
    v = 1.25
    by_hand = [3 * 0.25 * (-(v * p - RHO * q) / (v * v - RHO**2) + p / v) for p, q in ((x, y), (y, x))]
    for one, other in zip(found, by_hand):
        torch.testing.assert_close(one, other)


def test_streams_without_noise_get_no_correction_and_one_stream_none():
    x, y = torch.randn(4, 1), torch.randn(4, 1)
    first, second = corrections(GaussianCoupler(), [0, 1], [x, y], [0.5, 0.0])
    assert first.abs().sum() > 0 and not second.any()
    assert not corrections(GaussianCoupler(), [0], [x], [0.5])[0].any()
    assert not any(z.any() for z in corrections(GaussianCoupler(), [0, 1], [x, y], [0.0, 0.0]))


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_coupled_streams_have_the_joint_distribution(eta):
    streams = {name: CoupledStream(unit_normal) for name in "ab"}
    shapes = {name: (4000, 1) for name in "ab"}
    sigmas = karras_sigmas(60, 20.0, 0.01)
    joint = couple(streams, shapes, GaussianCoupler(), sigmas=sigmas, weight=1.0, eta=eta)
    apart = couple(streams, shapes, None, sigmas=sigmas, eta=eta)
    assert abs(correlation(joint["a"], joint["b"]) - RHO) < 0.03 and abs(correlation(apart["a"], apart["b"])) < 0.05
    for z in (*joint.values(), *apart.values()):
        assert abs(float(z.std()) - 1) < 0.06 and abs(float(z.mean())) < 0.06


def test_a_held_stream_conditions_the_other():
    held = torch.linspace(-2, 2, 4000)[:, None]
    streams = {"a": CoupledStream(unit_normal), "b": CoupledStream()}
    out = couple(streams, {"a": (4000, 1)}, GaussianCoupler(), sigmas=karras_sigmas(60, 20.0, 0.01), weight=1.0,
                 held={"b": held})  # fmt: skip
    assert list(out) == ["a"]
    rest = out["a"] - RHO * held
    assert abs(float(rest.std()) - math.sqrt(1 - RHO**2)) < 0.03 and abs(correlation(rest, held)) < 0.06


def test_without_weight_each_stream_is_as_alone():
    streams = {name: CoupledStream(unit_normal, scale=2.0, shift=1.0) for name in "ab"}
    shapes = {name: (3, 1) for name in "ab"}
    base = couple(streams, shapes, None, seed=4)
    for options in ({"weight": 0.0}, {"start_percent": 0.5, "end_percent": 0.5}):
        same = couple(streams, shapes, GaussianCoupler(), seed=4, **options)
        assert all(torch.equal(base[name], same[name]) for name in "ab")
    alone = couple({"a": streams["a"]}, {"a": (3, 1)}, None, seed=4)
    assert torch.equal(alone["a"], base["a"])


def test_scales_and_shifts_are_those_of_the_models_latents():
    """A model on latents (z - 1) * 2 of unit variance gives autoencoder latents of deviation 1/2 and mean 1."""
    out = couple(
        {"a": CoupledStream(unit_normal, 2.0, 1.0)}, {"a": (4000, 1)}, None, sigmas=karras_sigmas(60, 20, 0.01)
    )
    assert abs(float(out["a"].mean()) - 1) < 0.03 and abs(float(out["a"].std()) - 0.5) < 0.03


def test_wrong_arguments_are_named():
    streams, shapes = {name: CoupledStream(unit_normal) for name in "ab"}, {name: (2, 1) for name in "ab"}
    for arguments, words in [
        ({"weight": -1.0}, "weight"),
        ({"weight": math.nan}, "weight"),
        ({"held": {"a": torch.zeros(3, 1)}}, "batch sizes differ"),
    ]:
        with pytest.raises(ValueError, match=words):
            couple(streams, shapes, GaussianCoupler(), **arguments)
    with pytest.raises(ValueError, match="b: give a denoiser"):
        couple({"a": streams["a"], "b": CoupledStream()}, shapes)
    with pytest.raises(ValueError, match="fits no free latent space"):
        couple(streams, {"a": (2, 1), "b": (2, 7)}, GaussianCoupler())


ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sigma", [0.05, 0.7, 5.0])
def test_predictions_of_ddpm_networks_become_denoised_ones(kind, sigma):
    clean, noise = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    a = 1 / (1 + sigma**2)
    seen = []

    def predict(x, t):
        seen.append((x, float(t)))
        return {"epsilon": noise, "v_prediction": a**0.5 * noise - (1 - a) ** 0.5 * clean, "sample": clean}[kind]

    found = ddpm_denoiser(predict, ALPHAS, kind)(clean + sigma * noise, sigma)
    torch.testing.assert_close(found, clean)
    x, t = seen[0]
    torch.testing.assert_close(x, a**0.5 * clean + (1 - a) ** 0.5 * noise)
    low, high = ALPHAS[int(t)], ALPHAS[int(t) + 1]
    assert high <= a <= low


def test_a_sigma_beyond_the_schedule_keeps_the_variance():
    seen = []
    denoise = ddpm_denoiser(lambda x, t: seen.append((x, float(t))) or torch.zeros_like(x), ALPHAS)
    x = 80 * torch.randn(4000, dtype=torch.float64)
    denoise(x, 80.0)
    assert seen[0][1] == 999 and abs(float(seen[0][0].std()) - 1) < 0.05


def test_velocities_of_flow_models_become_denoised_predictions():
    clean, noise, seen = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64), []
    denoise = flow_denoiser(lambda x, t: seen.append((x, float(t))) or noise - clean)
    torch.testing.assert_close(denoise(clean + 3 * noise, 3.0), clean)
    torch.testing.assert_close(seen[0][0], 0.25 * clean + 0.75 * noise)
    assert seen[0][1] == pytest.approx(0.75)


def test_schedulers_of_diffusers_are_understood():
    import diffusers

    clean, noise = torch.randn(2, 3), torch.randn(2, 3)
    x = clean + 2 * noise
    ddim = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    torch.testing.assert_close(from_diffusers(lambda *_: noise, ddim)(x, 2.0), clean, rtol=1e-4, atol=1e-4)
    times = []
    flow = from_diffusers(
        lambda x, t: times.append(float(t)) or noise - clean, diffusers.FlowMatchEulerDiscreteScheduler()
    )
    torch.testing.assert_close(flow(x, 2.0), clean, rtol=1e-4, atol=1e-4)
    assert times == pytest.approx([1000 * 2 / 3])
    with pytest.raises(ValueError, match="EDMEulerScheduler .* write a denoiser"):
        from_diffusers(lambda *_: noise, diffusers.EDMEulerScheduler())
