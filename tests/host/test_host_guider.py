"""Guidance with a scale for each stream."""

import pytest
import torch

NAMES = ("image", "video", "audio", "text")


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def guided(host, run_node, tiny, prompts):
    """SamplerCustomAdvanced with a guider; returns the streams."""

    def call(guider, latent, steps=3, sampler="dpmpp_2m"):
        (noise,), (sampler,) = run_node("RandomNoise", noise_seed=0), run_node("KSamplerSelect", sampler_name=sampler)
        (sigmas,) = run_node("BasicScheduler", model=tiny[0], scheduler="normal", steps=steps, denoise=1.0)
        output, _ = run_node(
            "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
        )
        return host.module("nodes.runtime.latent_packing").split(output["samples"])

    return call


@pytest.fixture
def ours(run_node, tiny, prompts):
    def make(model=None, default=2.0, **cfgs):
        scales = {f"cfg_{name}": cfgs.get(name, default) for name in NAMES}
        positive, negative = prompts
        return run_node("CoDiGuider", model=model or tiny[0], positive=positive, negative=negative, **scales)[0]

    return make


@pytest.fixture
def stock(run_node, tiny, prompts):
    def make(cfg, model=None):
        positive, negative = prompts
        return run_node("CFGGuider", model=model or tiny[0], positive=positive, negative=negative, cfg=cfg)[0]

    return make


@pytest.mark.parametrize("cfg", [1.0, 3.5])
@pytest.mark.parametrize("streams", [{}, {"audio": False}, {"video": True, "text": True}])
def test_equal_scales_are_the_stock_guider(guided, ours, stock, empty, cfg, streams):
    assert equal(guided(ours(default=cfg), empty(**streams)), guided(stock(cfg), empty(**streams)))


def test_only_streams_that_are_there_count(guided, ours, stock, empty):
    assert equal(guided(ours(image=4.0, text=1.0), empty(audio=False)), guided(stock(4.0), empty(audio=False)))
    assert equal(guided(ours(video=9.0, text=9.0), empty()), guided(stock(2.0), empty()))


def test_each_stream_has_its_scale(run_node, guided, ours, stock, empty, tiny):
    """Unaligned streams: each is as if all had its scale."""
    (unaligned,) = run_node("CoDiAlignment", model=tiny[0], mode="none", strength=1.0)
    latent = empty(video=True, text=True)
    scales = dict(zip(NAMES, (1.0, 2.0, 3.0, 0.5)))
    results = guided(ours(unaligned, **scales), latent)
    for i, cfg in enumerate(scales.values()):
        # Rounding differs, and random weights at high noise make much of that.
        torch.testing.assert_close(results[i], guided(stock(cfg, unaligned), latent)[i], atol=2e-3, rtol=2e-3)


def test_guidance_of_one_stream_reaches_the_other(guided, ours, empty):
    (_, one), (_, other) = guided(ours(image=1.0), empty()), guided(ours(image=4.0), empty())
    assert not torch.allclose(one, other, atol=1e-3)


def test_patches_of_guidance_get_each_streams_scale(run_node, guided, ours, stock, empty, tiny):
    """Nodes such as RescaleCFG replace the formula; here one that doubles the scale."""

    def doubled(inputs):
        return inputs["uncond"] + 2 * inputs["cond_scale"] * (inputs["cond"] - inputs["uncond"])

    (unaligned,) = run_node("CoDiAlignment", model=tiny[0], mode="none", strength=1.0)
    patched = unaligned.clone()
    patched.set_model_sampler_cfg_function(doubled)
    for one, other in zip(
        guided(ours(patched, image=1.0, audio=1.5), empty()), guided(ours(unaligned, image=2.0, audio=3.0), empty())
    ):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=2e-3)


def test_a_guider_serves_again_for_another_latent(guided, ours, empty):
    guider = ours(image=1.0, audio=4.0)
    first = guided(guider, empty())
    guided(guider, empty(audio=False))
    assert equal(guided(guider, empty()), first)


def test_guidance_can_hold_streams(host, run_node, guided, ours, empty, tiny):
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    _, audio = empty()["samples"].unbind()
    latent = {"samples": host.module("nodes.runtime.latent_packing").join([clean, audio])}
    held = {name: name == "image" for name in NAMES}
    (latent,) = run_node("CoDiHoldStreams", model=tiny[0], samples=latent, **held)
    image, made = guided(ours(image=1.0, audio=3.0), latent)
    assert torch.equal(image, clean)
    assert made.isfinite().all() and made.std() > 0.1


def test_only_the_conditional_branch_is_aligned(run_node, tiny, empty, guided, prompts):
    """Whatever guider it is; this one gives ComfyUI its prompts in another order and calls the second one negative."""
    from comfy.patcher_extension import WrappersMP

    conditional = {}

    def watch(executor, x, timesteps, context, *arguments, **named):
        conditional.update({round(float(row.sum()), 4): named["is_conditional"] for row in context})
        return executor(x, timesteps, context, *arguments, **named)

    model = tiny[0].clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", watch)
    positive, negative = prompts
    other = [[-positive[0][0], {}]]
    (guider,) = run_node(
        "DualCFGGuider",
        model=model,
        cond1=positive,
        cond2=other,
        negative=negative,
        cfg_conds=2.0,
        cfg_cond2_negative=3.0,
        style="regular",
    )
    guided(guider, empty(), steps=1)
    sums = [round(float(prompt[0][0].sum()), 4) for prompt in (positive, other, negative)]
    assert conditional == dict(zip(sums, (True, False, False)))


@pytest.mark.parametrize("scales", [(1.0, 0.5), (0.2, 1.0), (1.0, 0.0)])
def test_a_scale_of_one_beside_smaller_ones(run_node, guided, ours, stock, empty, tiny, scales):
    """Where the largest scale is 1, ComfyUI would leave the negative prompt out, and all would be at 1."""
    (unaligned,) = run_node("CoDiAlignment", model=tiny[0], mode="none", strength=1.0)
    results = guided(ours(unaligned, image=scales[0], audio=scales[1]), empty())
    for i, cfg in enumerate(scales):
        torch.testing.assert_close(results[i], guided(stock(cfg, unaligned), empty())[i], atol=2e-3, rtol=2e-3)
    assert not torch.allclose(
        results[0 if scales[1] == 1 else 1], guided(stock(1.0, unaligned), empty())[scales[1] != 1]
    )
