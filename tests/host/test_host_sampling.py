"""The stock KSampler on CoDi's MODEL."""

import dataclasses

import pytest
import torch
from host.tiny_checkpoint import tiny_config, tiny_parts


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "ddim", "uni_pc", "dpmpp_sde", "lcm"])
def test_stock_samplers_denoise_both_streams(sample, empty, sampler):
    image, audio = sample(empty(batch_size=2), sampler=sampler)
    assert image.shape == (2, 4, 8, 8) and audio.shape == (2, 8, 32, 8)
    assert image.isfinite().all() and audio.isfinite().all()


@pytest.mark.parametrize(("streams", "shape"), [({"audio": False}, (1, 4, 8, 8)), ({"image": False}, (1, 8, 32, 8))])
def test_one_stream_alone_is_a_plain_latent(sample, empty, streams, shape):
    latent = empty(**streams)
    assert torch.is_tensor(latent["samples"])
    (result,) = sample(latent)
    assert result.shape == shape and result.std() > 0.1


def test_same_seed_same_bits_and_another_seed_not(sample, empty):
    first = sample(empty(), seed=1)
    assert equal(first, sample(empty(), seed=1))
    other = sample(empty(), seed=2)
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


def test_alignment_decides_whether_streams_attend_to_each_other(run_node, sample, empty, tiny):
    def aligned(mode, strength=1.0):
        return sample(empty(), run_node("CoDiAlignment", model=tiny[0], mode=mode, strength=strength)[0])

    default, none = sample(empty()), aligned("none")
    assert equal(default, aligned("paper")) and equal(none, aligned("paper", 0.0))
    assert all(not torch.allclose(a, b) for a, b in zip(default, none, strict=True))
    assert all(not torch.allclose(a, b) for a, b in zip(aligned("released"), none, strict=True))
    # Its own noise comes first, so an unaligned image is the same with and without an audio stream beside it.
    torch.testing.assert_close(none[0], sample(empty(audio=False))[0], atol=1e-3, rtol=1e-3)


def test_alignment_scale_is_the_models_unless_set(run_node, sample, empty, tiny, prompts):
    def scaled(scale):
        (model,) = run_node("CoDiAlignment", model=tiny[0], mode="paper", strength=1.0, alignment_scale=scale)
        (ours,) = run_node(
            "CoDiSampler", model=model, latent_image=empty(), mode="paper", strength=1.0, denoise=1.0,
            **settings(prompts),
        )  # fmt: skip
        result = sample(empty(), model, seed=3, steps=2, cfg=2.5, sampler="dpmpp_2m", scheduler="sgm_uniform")
        assert equal(ours["samples"].unbind(), result)
        return result

    own = tiny[0].model.codi_config.modality_guidance
    assert own == 1.5 and equal(scaled(0.0), scaled(own))
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in zip(scaled(1.0), scaled(own), strict=True))


ALL = {"image": True, "video": True, "audio": True, "text": True}


def test_all_four_streams_attend_to_each_other(run_node, sample, empty, tiny):
    joint = sample(empty(**ALL), steps=2)
    assert [tuple(stream.shape) for stream in joint] == [
        (1, 4, 8, 8),
        (1, 4, 4, 8, 8),
        (1, 8, 32, 8),
        (1, 24, 1, 1),
    ]
    (unaligned,) = run_node("CoDiAlignment", model=tiny[0], mode="none", strength=1.0)
    for one, other in zip(joint, sample(empty(**ALL), unaligned, steps=2), strict=True):
        assert one.isfinite().all() and not torch.allclose(one, other, atol=1e-3)


def paired(run_node, model, *pairs):
    for target, source, strength in pairs:
        (model,) = run_node("CoDiAlignmentPair", model=model, listener=target, speaker=source, strength=strength)
    return model


def test_a_pair_sets_one_direction(run_node, sample, empty, tiny):
    unaligned = run_node("CoDiAlignment", model=tiny[0], mode="none", strength=1.0)[0]
    image, audio = sample(empty(), paired(run_node, tiny[0], ("image", "audio", 0.0)))
    alone, _ = sample(empty(), unaligned)
    assert torch.equal(image, alone)  # The image is unaligned, and does not depend on the audio stream.
    _, both_ways = sample(empty())
    assert not torch.allclose(audio, both_ways)  # The audio stream attends to another image.
    assert not torch.allclose(audio, sample(empty(), unaligned)[1])


def test_pairs_are_a_matrix_over_the_strength(run_node, sample, empty, tiny):
    def of_strength(strength):
        return run_node("CoDiAlignment", model=tiny[0], mode="paper", strength=strength)[0]

    both = (("image", "audio", 0.5), ("audio", "image", 0.5))
    assert equal(sample(empty(), paired(run_node, tiny[0], *both)), sample(empty(), of_strength(0.5)))
    # Unnamed pairs have the node's strength, in whichever order the nodes come; the last node of a pair counts.
    one = paired(run_node, of_strength(0.5), ("image", "audio", 0.5))
    other = run_node("CoDiAlignment", model=paired(run_node, tiny[0], both[0]), mode="paper", strength=0.5)[0]
    assert equal(sample(empty(), one), sample(empty(), of_strength(0.5)))
    assert equal(sample(empty(), other), sample(empty(), of_strength(0.5)))
    again = paired(run_node, tiny[0], ("image", "audio", 3.0), *both)
    assert equal(sample(empty(), again), sample(empty(), of_strength(0.5)))


def curved(run_node, model, *points):
    curve = {"points": [list(point) for point in points], "interpolation": "linear"}
    return run_node("CoDiAlignmentCurve", model=model, curve=curve)[0]


def test_a_flat_curve_scales_the_strength(run_node, sample, empty, tiny):
    half = run_node("CoDiAlignment", model=tiny[0], mode="paper", strength=0.5)[0]
    assert equal(sample(empty(), curved(run_node, tiny[0], (0, 1), (1, 1))), sample(empty()))
    assert equal(sample(empty(), curved(run_node, tiny[0], (0, 0.5), (1, 0.5))), sample(empty(), half))
    unaligned = run_node("CoDiAlignment", model=tiny[0], mode="none", strength=1.0)[0]
    assert equal(sample(empty(), curved(run_node, tiny[0], (0, 0), (1, 0))), sample(empty(), unaligned))
    pair = paired(run_node, tiny[0], ("image", "audio", 0.0))
    assert equal(sample(empty(), curved(run_node, pair, (0, 0), (1, 0))), sample(empty(), unaligned))


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_curve_goes_by_the_noise_level(run_node, host, sample, empty, tiny, sampler):
    """Left of the curve is the highest level, right the lowest, whatever levels a sampler looks at."""
    from comfy.patcher_extension import WrappersMP

    seen = []

    def watch(executor, x, timesteps, *arguments, **named):
        seen.append(
            (float(timesteps[0]), curve.interp(host.module("nodes.runtime.alignment_options").progress(timesteps)))
        )
        return executor(x, timesteps, *arguments, **named)

    model = curved(run_node, tiny[0], (0, 0), (1, 1))
    curve = model.model_options["transformer_options"]["codi"]["curve"]
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", watch)
    sample(empty(), model, sampler=sampler)
    sampling = tiny[0].model.model_sampling
    for timestep, height in seen:
        assert height == pytest.approx(1 - timestep / 999)
        if 0 < height < 1:  # ComfyUI's own measure of progress agrees
            assert float(sampling.sigma(torch.tensor(timestep))) == pytest.approx(sampling.percent_to_sigma(height))
    assert seen[0][1] == 0 and seen[-1][1] > 0.9


def test_a_held_stream_stays_and_the_other_attends_to_it(host, run_node, sample, empty, tiny):
    generator = torch.Generator().manual_seed(5)
    image, audio = empty()["samples"].unbind()

    def held(clean, model=tiny[0]):
        latent = {"samples": host.module("nodes.runtime.latent_packing").join([clean, audio])}
        off = {"video": False, "audio": False, "text": False}
        (latent,) = run_node("CoDiHoldStreams", model=tiny[0], samples=latent, image=True, **off)
        return sample(latent, model, steps=8)

    one, other = (torch.randn(image.shape, generator=generator) for _ in range(2))
    kept, made = held(one)
    assert torch.equal(kept, one)
    assert not torch.allclose(made, held(other)[1])
    (plain,) = run_node("CoDiAlignment", model=tiny[0], mode="paper", strength=1.0, alignment_scale=1.0)
    assert torch.equal(made, held(one, plain)[1])  # the scale is for noisy source streams


def test_a_held_stream_is_not_predicted_and_is_a_source_without_noise(host, run_node, sample, empty, tiny):
    streams = host.module("nodes.runtime.latent_packing")
    image, audio = empty()["samples"].unbind()
    clean = torch.randn(image.shape, generator=torch.Generator().manual_seed(5))
    network = tiny[0].model.diffusion_model.diffuser.networks["image"]
    predicted, sources = [], []
    handles = [
        network.out.register_forward_pre_hook(lambda *_: predicted.append(1)),
        network.environment_encoder.register_forward_pre_hook(lambda _, given: sources.append(given[0].clone())),
    ]

    def held(value):
        masks = [streams.whole_mask(image, value), streams.whole_mask(audio, 1.0)]
        return sample({"samples": streams.join([clean, audio]), "noise_mask": streams.join(masks)})

    try:
        held(0.0)
        assert not predicted
        scaled = tiny[0].model.process_latent_in(clean)
        assert sources
        for latent in sources:
            torch.testing.assert_close(latent, scaled.to(latent))
        sources.clear()
        held(1e-9)  # almost held: predicted, and noised like the others
        assert predicted
        assert not torch.allclose(sources[0], scaled.to(sources[0]), atol=0.1)
    finally:
        for handle in handles:
            handle.remove()


SAMPLER = {"seed": 3, "steps": 2, "cfg": 2.5, "sampler_name": "dpmpp_2m", "scheduler": "sgm_uniform"}


def settings(prompts, **more):
    return SAMPLER | {"positive": prompts[0], "negative": prompts[1]} | more


def test_our_sampler_is_alignment_and_ksampler(host, run_node, sample, empty, tiny, prompts):
    half = run_node("CoDiAlignment", model=tiny[0], mode="released", strength=0.5)[0]
    for denoise in (1.0, 0.6):
        start = sample(empty(), steps=1)
        latent = {"samples": host.module("nodes.runtime.latent_packing").join(start)}
        (ours,) = run_node(
            "CoDiSampler",
            model=tiny[0],
            latent_image=latent,
            mode="released",
            strength=0.5,
            denoise=denoise,
            **settings(prompts),
        )
        with torch.inference_mode():
            (stock,) = host.node("KSampler")().sample(
                half, 3, 2, 2.5, "dpmpp_2m", "sgm_uniform", *prompts, latent, denoise=denoise
            )
        assert equal(ours["samples"].unbind(), stock["samples"].unbind())
        assert equal(latent["samples"].unbind(), start)


def test_default_schedule_is_that_of_the_command_line(host, tiny):
    import comfy.samplers

    sampling = host.module("nodes.samplers.samplers")
    scheduler = host.module("codi_backend.sampling.samplers").make_scheduler(sampling.DEFAULT_SAMPLER, 20)
    sigmas = comfy.samplers.calculate_sigmas(tiny[0].model.model_sampling, sampling.DEFAULT_SCHEDULER, 20)
    torch.testing.assert_close(sigmas, scheduler.sigmas, atol=2e-3, rtol=2e-3)  # whose timesteps are whole


@pytest.mark.parametrize(
    ("node", "size", "stream"),
    [
        ("Image", {"width": 32, "height": 64}, "image"),
        ("Video", {"width": 0, "height": 0, "frames": 3}, "video"),
        ("Audio", {"seconds": 1.28}, "audio"),
        ("Text", {}, "text"),
    ],
)
def test_samplers_of_one_modality(run_node, sample, empty, tiny, prompts, node, size, stream):
    (latent,) = run_node(f"CoDiSample{node}", model=tiny[0], batch_size=2, **size, **settings(prompts))
    start = empty(**{name: name == stream for name in ALL}, batch_size=2, **size)
    (same,) = sample(start, seed=3, steps=2, cfg=2.5, sampler="dpmpp_2m", scheduler="sgm_uniform")
    assert latent["samples"].shape == start["samples"].shape and torch.equal(latent["samples"], same)


@pytest.mark.parametrize(("mode", "audio"), [("paper", True), ("none", False)])
def test_samplers_of_one_modality_add_auxiliary_streams(
    run_node, sample, empty, tiny, prompts, monkeypatch, mode, audio
):
    """As `codi generate` does: an audio stream as long as the video, which is dropped."""
    config = tiny[0].model.codi_config
    monkeypatch.setattr(
        tiny[0].model, "codi_config", dataclasses.replace(config, auxiliary_streams={"video": ("audio",)})
    )
    (model,) = run_node("CoDiAlignment", model=tiny[0], mode=mode, strength=1.0)
    size = {"width": 0, "height": 0, "frames": 12}
    (latent,) = run_node("CoDiSampleVideo", model=model, batch_size=1, **size, **settings(prompts))
    seconds = 12 / config.image_autoencoder.frame_rate
    start = empty(image=False, video=True, audio=audio, seconds=seconds, **size)
    same, *others = sample(start, model, seed=3, steps=2, cfg=2.5, sampler="dpmpp_2m", scheduler="sgm_uniform")
    assert len(others) == audio and torch.equal(latent["samples"], same)
    if audio:
        assert others[0].shape != sample(empty())[1].shape


def test_wrappers_around_the_network_are_called(sample, empty, tiny):
    from comfy.patcher_extension import WrappersMP

    calls = []

    def count(executor, x, *arguments, **named):
        calls.append(len(x))
        return executor(x, *arguments, **named)

    model = tiny[0].clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", count)
    # With and without the prompt in turns, each for both streams.
    assert equal(sample(empty(), model, steps=3), sample(empty(), steps=3)) and calls == [2, 2] * 3


def test_custom_sampler_gives_what_ksampler_gives(run_node, sample, empty, prompts, tiny):
    (noise,) = run_node("RandomNoise", noise_seed=0)
    (guider,) = run_node("CFGGuider", model=tiny[0], positive=prompts[0], negative=prompts[1], cfg=7.5)
    (sampler,) = run_node("KSamplerSelect", sampler_name="euler")
    (sigmas,) = run_node("BasicScheduler", model=tiny[0], scheduler="normal", steps=4, denoise=1.0)
    output, denoised = run_node(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=empty()
    )
    assert equal(output["samples"].unbind(), sample(empty()))
    # The last step of euler lands on what it takes for the clean latent.
    for one, other in zip(output["samples"].unbind(), denoised["samples"].unbind(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_sampler_agrees_with_ddim_written_out(host, sample, empty, prompts, sampler):
    """DDIM in terms of the cumulative signal level, on the backend's own diffuser and torch's own layers."""
    backend, steps, guidance = host.module("codi_backend"), 10, 3.0
    config = tiny_config(backend)
    parts = tiny_parts(config)
    diffuser = backend.models.diffuser.Diffuser(config.diffuser)
    for name, network in diffuser.networks.items():
        network.load_state_dict(parts[f"diffuser.{name}"])
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    levels = (1 - betas).cumprod(0)
    timesteps = list(range(1, 1000, 1000 // steps))[::-1]
    positive, negative = (condition[0][0] for condition in prompts)

    generator = torch.manual_seed(0)
    shapes = {"image": (1, 4, 8, 8), "audio": (1, 8, 32, 8)}
    x = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    first = levels[timesteps[0]].item()
    for name, value in x.items():  # an empty latent is the mean one, noised like any other
        mean = torch.tensor(config.diffuser.latent_means[name])[:, None, None]
        x[name] = first**0.5 * mean + (1 - first) ** 0.5 * value
    with torch.inference_mode():
        for i, t in enumerate(timesteps):
            level = levels[t].item()
            following = levels[timesteps[i + 1]].item() if i + 1 < len(timesteps) else 1.0
            unaligned = diffuser(x, torch.tensor([t]), positive, alignment="none")
            aligned = diffuser(x, torch.tensor([t]), positive)
            unconditional = diffuser(x, torch.tensor([t]), negative, alignment="none")
            for name in x:
                scale = config.modality_guidance if t >= 500 else 1.0
                conditional = unaligned[name] + scale * (aligned[name] - unaligned[name])
                noise = unconditional[name] + guidance * (conditional - unconditional[name])
                clean = (x[name] - (1 - level) ** 0.5 * noise) / level**0.5
                x[name] = following**0.5 * clean + (1 - following) ** 0.5 * noise

    image, audio = sample(empty(), steps=steps, cfg=guidance, sampler=sampler, scheduler="ddim_uniform")
    torch.testing.assert_close(image * config.image_autoencoder.scale_factor, x["image"], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(audio * config.audio_autoencoder.scale_factor, x["audio"], atol=1e-3, rtol=1e-3)


def test_an_interrupt_ends_a_step_and_nothing_else(sample, empty, tiny):
    import comfy.model_management as mm

    whole = sample(empty(), steps=2)
    stages = []
    network = tiny[0].model.diffusion_model.diffuser.networks["audio"]

    def press_cancel(*_):
        stages.append(1)
        if len(stages) == 5:
            mm.interrupt_current_processing()

    blocks = [*network.input_blocks, network.middle_block, *network.output_blocks]
    handles = [block.register_forward_hook(press_cancel) for block in blocks]
    try:
        with pytest.raises(mm.InterruptProcessingException):
            sample(empty(), steps=2)
        assert len(stages) == 5  # the very next block was not computed
    finally:
        for handle in handles:
            handle.remove()
        mm.interrupt_current_processing(False)
    assert equal(sample(empty(), steps=2), whole)
    mm.unload_all_models()
    assert mm.current_loaded_models == []


@pytest.mark.parametrize("flag", ["fp16_unet", "bf16_unet", "fp8_e4m3fn_unet"])
def test_precision_flags_are_obeyed(monkeypatch, run_node, sample, empty, flag):
    from comfy.cli_args import args

    whole = sample(empty(**ALL), steps=2, cfg=1.0)
    monkeypatch.setattr(args, flag, True)
    model = run_node("CoDiLoadModel", checkpoint="tiny.safetensors")[0]
    kind = {"fp16_unet": torch.float16, "bf16_unet": torch.bfloat16, "fp8_e4m3fn_unet": torch.float8_e4m3fn}[flag]
    assert model.model.get_dtype() == kind
    for one, other in zip(whole, sample(empty(**ALL), model, steps=2, cfg=1.0), strict=True):
        error = (one - other).square().mean().sqrt() / one.std().clamp(min=1)
        assert 0 < error < (0.5 if flag.startswith("fp8") else 0.1)
