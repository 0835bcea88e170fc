"""Guiders of ComfyUI's own models in one latent: without a coupler each gives what it gives alone, bit for bit."""

import math

import pytest
import torch
from host import core_models as core
from host.core_models import sigmas_of
from host.coupled_runs import Case, alone, assert_each_as_alone, nested, together

DETERMINISTIC = (
    ("euler", "heun", "heunpp2", "exp_heun_2_x0", "dpm_2", "lms", "dpmpp_2m", "ipndm", "ipndm_v", "deis")
    + ("res_multistep", "gradient_estimation", "uni_pc", "uni_pc_bh2", "ddim")
    + ("euler_cfg_pp", "res_multistep_cfg_pp", "gradient_estimation_cfg_pp", "dpmpp_2m_cfg_pp")
)  # fmt: skip
STOCHASTIC = (
    ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "ddpm")
    + ("lcm", "er_sde", "seeds_2", "sa_solver", "res_multistep_ancestral", "euler_ancestral_cfg_pp")
    + ("dpmpp_2s_ancestral_cfg_pp", "dpm_fast", "dpm_adaptive")
)  # fmt: skip


def flow_sigmas(sigmas):
    return sigmas / (1 + sigmas)


@pytest.mark.parametrize(
    ("names", "lead"),
    [(("sd15", "sdxl"), 0), (("sd15", "stable_audio"), 0), (("stable_audio", "sdxl"), 1), (("flux", "ace"), 0)],
)
def test_models_of_one_convention_are_as_alone(couple, names, lead):
    """Noise prediction beside noise prediction and V, flow beside flow; the sigmas are the lead's."""
    case = Case.of(*names, empty=False)
    sigmas = sigmas_of(case.guiders[lead].model_patcher, steps=3)
    if names[lead] == "flux":
        # At 1, where the ratio of noise is infinite, some samplers ask the model's schedule for a sigma below.
        assert_each_as_alone(couple, case, sigmas, ("euler", "dpm_2", "ipndm", "euler_cfg_pp"), lead)
        sigmas[0] = 0.98
    assert_each_as_alone(couple, case, sigmas, DETERMINISTIC, lead)


def test_the_lead_of_another_convention_is_as_alone(couple):
    for names in (("sd15", "flux"), ("stable_audio", "ace"), ("flux", "stable_audio"), ("ace", "sdxl")):
        case = Case.of(*names)
        sigmas = sigmas_of(case.guiders[0].model_patcher)
        guider = couple(case)
        for name in ("euler", "dpmpp_2m", "uni_pc", "euler_cfg_pp"):
            assert torch.equal(together(guider, case, sigmas, name)[0], alone(case, 0, sigmas, name)), (names, name)


@pytest.mark.parametrize(("lead", "follower"), [("sd15", "flux"), ("stable_audio", "ace")])
def test_a_flow_model_follows_at_the_same_noise_level(couple, lead, follower):
    """A step of Euler's method is the same in both conventions, as far as floats go."""
    case = Case.of(lead, follower)
    sigmas = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0])
    for empty in (True, False):
        case = Case.of(lead, follower, empty=empty)
        result = together(couple(case), case, sigmas)[1]
        torch.testing.assert_close(result, alone(case, 1, flow_sigmas(sigmas)), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("lead", "follower"), [("flux", "sd15"), ("ace", "stable_audio")])
def test_a_flow_model_leads_at_the_same_noise_level(couple, lead, follower):
    sigmas = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0])
    for empty in (True, False):
        case = Case.of(lead, follower, empty=empty)
        result = together(couple(case), case, flow_sigmas(sigmas))[1]
        torch.testing.assert_close(result, alone(case, 1, sigmas), atol=2e-4, rtol=2e-4)


def test_beyond_its_range_a_model_gets_unit_variance_at_its_last_sigma(couple):
    """Stable Audio begins at 500, where SD1.5 ends at 14.6; flow begins where the ratio of noise is infinite."""
    seen = []

    def watch(apply_model, arguments):
        seen.append((float(arguments["timestep"][0]), float(arguments["input"].std())))
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    for lead, first in (("stable_audio", 500.0), ("flux", 1.0)):
        case = Case.of("sd15", lead)
        case.guiders[0].model_patcher.set_model_unet_function_wrapper(watch)
        seen.clear()
        results = together(couple(case, lead=1), case, torch.tensor([first, first / 2, 0.0]))
        assert all(result.isfinite().all() for result in results)
        sigma_max = float(case.guiders[0].model_patcher.get_model_object("model_sampling").sigma_max)
        assert seen[0][0] == pytest.approx(sigma_max)
        assert seen[0][1] == pytest.approx(math.hypot(1, sigma_max), rel=0.15)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_samplers_with_noise_run(couple, name):
    """Their noise is drawn for the packed latent; of a batch of one the first stream's is as alone."""
    # The adaptive one takes many steps for random weights.
    for names in [("sd15", "stable_audio"), ("flux", "sd15")][: 1 if name == "dpm_adaptive" else 2]:
        case = Case.of(*names)
        sigmas = sigmas_of(case.guiders[0].model_patcher, steps=3)
        first, again = (together(couple(case), case, sigmas, name) for _ in range(2))
        assert all(z.isfinite().all() and z.std() > 0.01 for z in first)
        assert all(torch.equal(a, b) for a, b in zip(first, again))
        if name in ("euler_ancestral", "dpmpp_2s_ancestral", "lcm", "ddpm", "euler_ancestral_cfg_pp"):
            # The generator is used up by the other stream after one step.
            assert torch.equal(
                together(couple(case), case, sigmas[[0, 1, -1]], name)[0], alone(case, 0, sigmas[[0, 1, -1]], name)
            )


def test_masks_are_as_alone(couple):
    """Of every kind of model, in its own convention; `ddim` draws the noise of kept parts anew."""
    for names in (("sd15", "stable_audio"), ("flux", "ace")):
        case = Case.of(*names, empty=False)
        generator = torch.Generator().manual_seed(0)
        masks = [torch.rand(1, 1, *core.SHAPES[name][1:], generator=generator).round() for name in names]
        sigmas = sigmas_of(case.guiders[0].model_patcher)
        assert_each_as_alone(couple, case, sigmas, ("euler", "dpmpp_2m", "ddim", "uni_pc"), masks=masks)
        for i in range(2):
            kept = together(couple(case), case, sigmas, mask=nested(masks))[i]
            torch.testing.assert_close(kept * (1 - masks[i]), case.latents[i] * (1 - masks[i]), atol=1e-4, rtol=1e-4)


def test_masks_of_another_convention(couple):
    case = Case.of("sd15", "flux", empty=False)
    masks = [torch.ones(1, 1, 8, 8), (torch.arange(8) < 4).float().expand(1, 1, 8, 8)]
    sigmas = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0])
    result = together(couple(case), case, sigmas, mask=nested(masks))[1]
    torch.testing.assert_close(result, alone(case, 1, flow_sigmas(sigmas), mask=masks[1]), atol=2e-4, rtol=2e-4)


def test_mask_functions_of_models_are_as_alone(couple):
    """Differential diffusion: the mask depends on the sigma."""

    def function(sigma, mask, extra_options):
        assert extra_options["sigmas"][0] >= sigma[0]
        return (mask >= sigma.reshape(-1, 1, 1, 1) / 20).to(mask)

    case = Case.of("sd15", "sdxl", empty=False)
    case.guiders[1].model_patcher.set_model_denoise_mask_function(function)
    masks = [torch.rand(1, 1, *core.SHAPES[name][1:]) for name in case.names]
    assert_each_as_alone(couple, case, sigmas_of(case.guiders[0].model_patcher), ("euler", "dpmpp_2m"), masks=masks)


def test_held_streams_stay_bit_for_bit_and_cost_nothing(couple):
    from comfy.patcher_extension import WrappersMP

    def refuse(*arguments, **named):
        raise AssertionError("a held stream was denoised")

    for held in (0, 1):
        case = Case.of("sd15", "flux", empty=False)
        case.guiders[held].model_patcher.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", refuse)
        masks = [torch.full((1, 1, *z.shape[2:]), float(i != held)) for i, z in enumerate(case.latents)]
        sigmas = sigmas_of(case.guiders[0].model_patcher)
        results = together(couple(case), case, sigmas, mask=nested(masks))
        assert torch.equal(results[held], case.latents[held])
        if held == 1:
            assert torch.equal(results[0], alone(case, 0, sigmas))


def test_batches_are_as_alone(couple):
    case = Case.of("sd15", "stable_audio", batch=3)
    assert_each_as_alone(couple, case, sigmas_of(case.guiders[0].model_patcher), ("euler", "dpmpp_2m"))


def test_guiders_of_the_core_are_as_alone(couple):
    import comfy_extras.nodes_custom_sampler as custom

    model = core.build("sdxl")
    basic = custom.Guider_Basic(model)
    basic.set_conds(core.conditioning("sdxl"))
    dual = custom.Guider_DualCFG(core.build("sd15"))
    dual.set_conds(*(core.conditioning("sd15", seed) for seed in range(3)))
    case = Case.of("sdxl", "sd15")
    for nested_style in (False, True):
        dual.set_cfg(3.0, 2.0, nested=nested_style)
        case.guiders = [basic, dual]
        assert_each_as_alone(couple, case, sigmas_of(model), ("euler", "dpmpp_2m", "euler_cfg_pp"))


def test_guiders_of_two_models_and_three_prompts(couple):
    """A model for the negative prompt, which comes back as well; and the perpendicular negative prompt."""
    import comfy.model_management as mm
    import comfy_extras.nodes_custom_sampler as custom
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    case = Case.of("sd15", "sdxl")
    dual = custom.Guider_DualModel(core.build("sd15"), core.build("sd15", seed=9))
    dual.set_conds(core.conditioning("sd15"), core.conditioning("sd15", 1))
    dual.set_cfg(3.0)
    perpendicular = Guider_PerpNeg(core.build("sdxl"))
    perpendicular.set_conds(*(core.conditioning("sdxl", seed) for seed in range(3)))
    perpendicular.set_cfg(3.0, 1.0)
    case.guiders = [dual, perpendicular]
    sigmas = sigmas_of(dual.model_patcher)
    assert_each_as_alone(couple, case, sigmas, ("euler", "dpmpp_2m"))
    results = together(couple(case), case, sigmas, callback=lambda *given: mm.unload_all_models())
    assert all(torch.equal(result, alone(case, i, sigmas)) for i, result in enumerate(results))


def test_one_model_in_several_guiders(couple):
    """The same MODEL, the same GUIDER, and clones with patches of their own, hooks included."""
    import comfy.sd

    model = core.build("sd15")
    weights = model.model.state_dict()
    names = [k.removesuffix(".weight") for k, v in weights.items() if k.startswith("diffusion_model.") and v.ndim == 2]
    lora = {}
    for name in (name for name in names if f"{name}.weight" in weights):
        height, width = weights[f"{name}.weight"].shape
        lora[f"{name}.lora_A.weight"] = 0.3 * torch.randn(2, width, generator=torch.Generator().manual_seed(1))
        lora[f"{name}.lora_B.weight"] = 0.3 * torch.randn(height, 2, generator=torch.Generator().manual_seed(2))
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)
    assert len(patched.patches) > 10
    first = core.guider("sd15", model)
    case = Case.of("sd15", "sd15", "sd15", "sd15")
    case.guiders = [first, core.guider("sd15", patched), first, core.guider("sd15", model, cfg=1.5, seed=4)]
    sigmas = sigmas_of(model)
    plain, changed = alone(case, 0, sigmas), alone(case, 1, sigmas)
    case.noise[1] = case.noise[0]
    assert not torch.allclose(plain, alone(case, 1, sigmas), atol=1e-2)
    case.noise[1] = core.latent("sd15", 11)
    assert_each_as_alone(couple, case, sigmas, ("euler", "dpmpp_2m"))
    assert torch.equal(alone(case, 0, sigmas), plain) and torch.equal(alone(case, 1, sigmas), changed)


def test_the_node_runs_in_sampler_custom_advanced(host, run_node):
    """Both outputs are in the units of each model's autoencoder."""
    case = Case.of("flux", "sd15")
    given = {f"guider_{i}": one for i, one in enumerate(case.guiders, start=1)}
    settings = {"weight": 3.0, "start_percent": 0.0, "end_percent": 1.0, "lead": 2}
    (guider,) = run_node("CoDiCoupleGuiders", guiders=given, **settings)
    (noise,), (euler,) = run_node("RandomNoise", noise_seed=3), run_node("KSamplerSelect", sampler_name="euler")
    sigmas = sigmas_of(case.guiders[1].model_patcher)
    joint = {"samples": nested(case.latents)}
    arguments = {"noise": noise, "guider": guider, "sampler": euler, "sigmas": sigmas, "latent_image": joint}
    output, denoised = run_node("SamplerCustomAdvanced", **arguments)
    for one, other in zip(output["samples"].unbind(), denoised["samples"].unbind(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    with torch.inference_mode():
        case.noise = noise.generate_noise(joint).unbind()
    assert torch.equal(output["samples"].unbind()[1], alone(case, 1, sigmas))


def test_guidance_functions_of_a_sampler_get_all_streams(couple):
    """And what it returns goes on; functions of the models get their own stream."""
    import comfy.samplers
    from comfy.model_patcher import set_model_options_post_cfg_function

    case = Case.of("sd15", "sdxl")
    shapes = []

    def own(arguments):
        shapes.append(tuple(arguments["denoised"].shape))
        return arguments["denoised"] * 1.5

    case.guiders[1].model_patcher.set_model_sampler_post_cfg_function(own)

    def doubling(model, x, sigmas, extra_args, callback, disable):
        def double(arguments):
            assert arguments["denoised"].shape == arguments["uncond_denoised"].shape == arguments["input"].shape
            return arguments["denoised"] * 2

        options = set_model_options_post_cfg_function(extra_args["model_options"].copy(), double)
        return model(x, sigmas[:1].expand(len(x)), **extra_args | {"model_options": options})

    once = comfy.samplers.KSAMPLER(doubling)
    sigmas = torch.tensor([4.0, 0.0])
    with torch.inference_mode():
        results = couple(case).sample(nested(case.noise), nested(case.latents), once, sigmas, seed=0).unbind()
        singles = [
            case.guiders[i].sample(case.noise[i], case.latents[i], SimpleOnce(), sigmas, seed=0) for i in range(2)
        ]
    assert shapes == [(1, 4, 8, 12)] * 2
    for result, single in zip(results, singles):
        torch.testing.assert_close(result, 2 * single)


class SimpleOnce:
    """A sampler that predicts once."""

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, *rest):
        x = noise * sigmas[0]
        return model_wrap(x, sigmas[:1].expand(len(x)), model_options=extra_args["model_options"])
