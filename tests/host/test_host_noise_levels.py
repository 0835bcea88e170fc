"""Noise levels in the conventions of ComfyUI's models."""

import pytest
import torch
from host import core_models as core
from host.coupled_runs import Case, alone, together

CLEAN = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
INFINITE = float("inf")
# Settings of its sampling.
PLAYGROUND = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}


@pytest.fixture(scope="module")
def levels(host):
    return host.module("nodes.runtime.noise_levels")


@pytest.fixture(scope="module")
def conventions(levels):
    """With what noisy latents are made of: data, factor of the data and factor of the noise at a sigma."""
    make = levels.NoiseConvention
    return {
        "plain": (make(flow=False), lambda s: (1.0, s)),
        "edm": (make(flow=False, data=0.5), lambda s: (0.5, s)),
        "flow": (make(flow=True), lambda t: (1 - t, t)),
        "loud flow": (make(flow=True, noise=8.0), lambda t: (1 - t, 8 * t)),
    }


KINDS = ("plain", "edm", "flow", "loud flow")


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_latents_are_translated_to_the_same_noise_level(levels, conventions, source, target):
    """Of clean latents with the deviation that each model expects."""
    (one, mix), (other, wanted) = conventions[source], conventions[target]
    for level in (0.02, 0.7, 5.0, 40.0):
        sigma = one.sigma(torch.full((2,), level))
        torch.testing.assert_close(one.level(sigma), torch.full((2,), level), rtol=1e-4, atol=0)
        data, noise = mix(float(sigma[0]))
        assert float(one.spread(sigma)[0]) == pytest.approx((data**2 + noise**2) ** 0.5, rel=1e-5)
        latent, own = levels.translate(data * CLEAN + noise * NOISE, sigma, one, other, INFINITE)
        data, noise = wanted(float(own[0]))
        assert noise / data == pytest.approx(level, rel=1e-3)
        torch.testing.assert_close(latent, data * CLEAN + noise * NOISE, rtol=1e-3, atol=1e-3 * float(latent.std()))
        back = levels.translate_back(latent, own, sigma, one, other)
        data, noise = mix(float(sigma[0]))
        torch.testing.assert_close(back, data * CLEAN + noise * NOISE, rtol=1e-3, atol=1e-3 * float(back.std()))


def test_equal_conventions_change_nothing(levels, conventions):
    for kind in KINDS:
        sigma = torch.tensor([0.3, 0.6])
        latent, own = levels.translate(CLEAN, sigma, conventions[kind][0], conventions[kind][0], 1.0)
        assert latent is CLEAN and own is sigma
        assert levels.sigmas(sigma, conventions[kind][0], conventions[kind][0], 1.0) is sigma


@pytest.mark.parametrize("source", KINDS)
def test_beyond_the_range_is_its_end(levels, conventions, source):
    """Pure noise of a flow has an infinite ratio."""
    one, (other, _) = conventions[source][0], conventions["plain"]
    sigma = torch.ones(2) if one.flow else torch.full((2,), 1e4)
    latent, own = levels.translate(one.spread(sigma)[0] * NOISE, sigma, one, other, 14.6)
    assert own.tolist() == pytest.approx([14.6] * 2)
    torch.testing.assert_close(latent.std(), other.spread(own)[0] * NOISE.std(), rtol=1e-4, atol=0)
    assert latent.isfinite().all()


def test_no_noise_stays_none(levels, conventions):
    for one, _ in conventions.values():
        for other, _ in conventions.values():
            assert levels.sigmas(torch.tensor([0.5, 0.0]), one, other, 80.0)[1] == 0


def test_conventions_of_the_cores_models(levels):
    known = {
        name: levels.NoiseConvention.of(core.build(name).get_model_object("model_sampling")) for name in core.SHAPES
    }
    assert [name for name, one in known.items() if one.flow] == ["ace", "flux"]
    assert {(one.data, one.noise) for one in known.values()} == {(1.0, 1.0)}


def with_sampling(model, kind, **settings):
    """A model with another sampling, as ComfyUI's nodes patch it."""
    import comfy.model_sampling as samplings

    class Sampling(*(getattr(samplings, one) for one in kind)):
        pass

    sampling = Sampling(model.model.model_config)
    if settings:
        sampling.set_parameters(**settings)
    patched = model.clone()
    patched.add_object_patch("model_sampling", sampling)
    return patched


@pytest.mark.parametrize("lead", ["sd15", "flux"])
def test_a_model_of_other_deviation_follows(couple, lead):
    """EDM as of Playground, whose latents have half the deviation: the same ratio is half the sigma."""
    case = Case.of(lead, "sdxl", empty=False)
    model = with_sampling(core.build("sdxl"), ("ModelSamplingContinuousEDM", "EDM"), **PLAYGROUND)
    case.guiders[1] = core.guider("sdxl", model)
    ratios = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0])
    sigmas = ratios if lead == "sd15" else ratios / (1 + ratios)
    results = together(couple(case), case, sigmas)
    torch.testing.assert_close(results[1], alone(case, 1, ratios / 2), atol=1e-3, rtol=1e-3)
    assert torch.equal(results[0], alone(case, 0, sigmas))


def test_a_model_of_other_deviation_leads(couple):
    case = Case.of("sdxl", "sd15", empty=False)
    model = with_sampling(core.build("sdxl"), ("ModelSamplingContinuousEDM", "EDM"), **PLAYGROUND)
    case.guiders[0] = core.guider("sdxl", model)
    ratios = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0])
    results = together(couple(case), case, ratios / 2)
    assert torch.equal(results[0], alone(case, 0, ratios / 2))
    torch.testing.assert_close(results[1], alone(case, 1, ratios), atol=1e-3, rtol=1e-3)


def test_patched_schedules_of_one_model_in_two_guiders(couple):
    """Clones of one model, of which one predicts V and another is shifted flow."""
    model = core.build("sd15")
    kinds = [("ModelSamplingDiscrete", "EPS"), ("ModelSamplingDiscrete", "V_PREDICTION")]
    case = Case.of("sd15", "sd15", "sd15")
    case.guiders = [core.guider("sd15", with_sampling(model, kind)) for kind in kinds]
    flow = with_sampling(model, ("ModelSamplingDiscreteFlow", "CONST"), shift=3.0)
    case.guiders.append(core.guider("sd15", flow))
    ratios = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0])
    results = together(couple(case), case, ratios)
    assert torch.equal(results[0], alone(case, 0, ratios)) and torch.equal(results[1], alone(case, 1, ratios))
    torch.testing.assert_close(results[2], alone(case, 2, ratios / (1 + ratios)), atol=1e-3, rtol=1e-3)
