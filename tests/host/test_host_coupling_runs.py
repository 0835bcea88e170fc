"""Coupled runs: the coupler's correction, memory, previews, ControlNet and LoRA, failures, and a hundred runs."""

import gc
import itertools
from types import SimpleNamespace

import pytest
import torch
from host import core_models as core
from host.core_models import sigmas_of
from host.coupled_runs import Case, alone, assert_each_as_alone, nested, sampler, together
from host.test_host_soak import alive


def expected_corrections(host, coupler, latents, sigmas, weight):
    corrections = host.module("codi_backend.sampling.coupling").corrections
    return corrections(coupler.coupler, range(len(latents)), latents, sigmas, weight)


def test_corrections_are_the_couplers_in_the_units_of_each_autoencoder(host, couple, coupler_of):
    """One step of Euler's method ends at the denoised prediction. Flux has a shift; its t of 0.8 is a sigma of 4."""
    case, coupler = Case.of("sd15", "flux", "stable_audio"), coupler_of("sd15", "flux", "stable_audio")
    sigmas = torch.tensor([4.0, 0.0])
    plain = together(couple(case), case, sigmas)
    results = together(couple(case, coupler=coupler, weight=5.0), case, sigmas)
    scales, shifts = (0.18215, 0.3611, 1.0), (0.0, 0.1159, 0.0)
    noisy = [4.0 * n / scale + shift for n, scale, shift in zip(case.noise, scales, shifts)]
    wanted = expected_corrections(host, coupler, noisy, [4.0 / scale for scale in scales], 5.0)
    for before, after, correction in zip(plain, results, wanted, strict=True):
        assert correction.abs().max() > 1e-4
        scale = float(before.abs().max())
        torch.testing.assert_close((after - before) / scale, correction / scale, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("lead", [0, 1])
def test_a_held_stream_is_a_clean_source(host, couple, coupler_of, lead):
    """Whoever leads; also where every other model is of another convention."""
    case, coupler = Case.of("sd15", "flux", empty=False), coupler_of("sd15", "flux")
    mask = nested([torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)])
    sigmas = torch.tensor([4.0, 0.0]) if lead == 0 else torch.tensor([0.8, 0.0])
    plain = together(couple(case, lead=lead), case, sigmas, mask=mask)
    results = together(couple(case, coupler=coupler, weight=5.0, lead=lead), case, sigmas, mask=mask)
    assert torch.equal(results[0], case.latents[0])
    noisy = case.latents[1] + 4.0 / 0.3611 * case.noise[1]
    wanted = expected_corrections(host, coupler, [case.latents[0], noisy], [0.0, 4.0 / 0.3611], 5.0)[1]
    torch.testing.assert_close(results[1] - plain[1], wanted, atol=1e-3, rtol=1e-3)
    assert wanted.abs().max() > 0.01


def test_a_weight_of_0_is_no_coupler(couple, coupler_of):
    case, coupler = Case.of("sd15", "stable_audio"), coupler_of("sd15", "stable_audio")
    sigmas = sigmas_of(case.guiders[0].model_patcher)
    results = together(couple(case, coupler=coupler, weight=0.0), case, sigmas)
    assert all(torch.equal(result, alone(case, i, sigmas)) for i, result in enumerate(results))
    changed = together(couple(case, coupler=coupler, weight=50.0), case, sigmas)
    assert not any(torch.equal(one, other) for one, other in zip(changed, results))


@pytest.mark.parametrize(("lead", "sigmas"), [(0, [14.0, 6.0, 2.0, 0.5, 0.0]), (1, [1.0, 0.8, 0.6, 0.2, 0.0])])
def test_start_and_end_are_shares_of_the_leads_schedule(host, couple, coupler_of, monkeypatch, lead, sigmas):
    module, seen = host.module("nodes.runtime.coupler_model"), []
    real = module.corrections
    monkeypatch.setattr(module, "corrections", lambda *given: seen.append(given[3]) or real(*given))
    case, coupler = Case.of("sd15", "flux"), coupler_of("sd15", "flux")
    schedule = case.guiders[lead].model_patcher.get_model_object("model_sampling")
    for start, end in ((0.0, 1.0), (0.3, 0.7), (0.9, 1.0), (0.0, 0.1)):
        seen.clear()
        guider = couple(case, coupler=coupler, weight=1.0, start_percent=start, end_percent=end, lead=lead)
        together(guider, case, torch.tensor(sigmas))
        low, high = schedule.percent_to_sigma(end), schedule.percent_to_sigma(start)
        assert len(seen) == sum(low <= s <= high and s < 1 - 1e-4 if lead else low <= s <= high for s in sigmas[:-1])
        for levels in seen:
            assert levels[0] * 0.18215 == pytest.approx(levels[1] * 0.3611, rel=1e-3)


def test_coupled_samplers_of_all_kinds_run(couple, coupler_of):
    for names in (("sd15", "stable_audio"), ("sdxl", "flux"), ("stable_audio", "ace"), ("flux", "ace")):
        case, coupler = Case.of(*names, batch=2), coupler_of(*names)
        sigmas = sigmas_of(case.guiders[0].model_patcher, steps=3)
        for name in ("euler", "dpmpp_2m_sde", "uni_pc", "euler_ancestral", "dpmpp_2m_cfg_pp"):
            first, again = (together(couple(case, coupler=coupler, weight=3.0), case, sigmas, name) for _ in range(2))
            assert all(z.isfinite().all() for z in first)
            assert all(torch.equal(a, b) for a, b in zip(first, again))


def lora_of(model, seed=0):
    """A LoRA of every matrix of a model."""
    lora, generator = {}, torch.Generator().manual_seed(seed)
    for key, value in model.model.state_dict().items():
        if key.startswith("diffusion_model.") and key.endswith(".weight") and value.ndim == 2:
            name = key.removesuffix(".weight")
            lora[f"{name}.lora_A.weight"] = 0.3 * torch.randn(2, value.shape[1], generator=generator)
            lora[f"{name}.lora_B.weight"] = 0.3 * torch.randn(value.shape[0], 2, generator=generator)
    return lora


def with_lora(model, seed=0):
    import comfy.sd

    patched, _ = comfy.sd.load_lora_for_models(model, None, lora_of(model, seed), 1.0, 0)
    assert len(patched.patches) > 10
    return patched


def with_hook(model, prompt):
    """A prompt whose LoRA is a hook on the weights, which ComfyUI applies while it samples."""
    import comfy.hooks
    import comfy.lora
    import node_helpers

    hooks = comfy.hooks.create_hook_lora(lora_of(model, 3), 1.0, 0.0)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    assert comfy.lora.load_lora(lora_of(model, 3), keys)
    return node_helpers.conditioning_set_values(prompt, {"hooks": hooks})


def with_control(prompt, strength=1.0):
    """A prompt with a small ControlNet of SD1.5."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.model_management as mm

    config = core.unet_config("sd15")
    for key in ("out_channels", "transformer_depth_output", "use_temporal_attention"):
        config.pop(key)
    network = comfy.cldm.cldm.ControlNet(hint_channels=3, num_heads=8, dtype=torch.float32, **config)
    core.fill(network, 5)
    control = comfy.controlnet.ControlNet(network.eval(), load_device=mm.get_torch_device()).copy()
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    control.set_cond_hint(hint, strength, (0.0, 1.0))
    return [[tokens, values | {"control": control, "control_apply_to_uncond": True}] for tokens, values in prompt]


@pytest.mark.parametrize("other", ["stable_audio", "flux"])
def test_controlnet_lora_and_hooks_of_one_model(couple, other):
    case = Case.of("sd15", other)
    plain = case.guiders[0].model_patcher
    sigmas = sigmas_of(plain)
    before = alone(case, 0, sigmas)
    prompt = with_control(core.conditioning("sd15"))
    hooked = with_hook(plain, core.conditioning("sd15"))
    for model, positive in ((with_lora(plain), None), (plain, prompt), (plain, hooked), (with_lora(plain, 2), prompt)):
        case.guiders[0] = core.guider("sd15", model, positive=positive)
        expected = alone(case, 0, sigmas)
        assert not torch.allclose(expected, before, atol=1e-2)
        for name in ("euler", "dpmpp_2m"):
            result = together(couple(case), case, sigmas, name)[0]
            assert torch.equal(result, alone(case, 0, sigmas, name))
    case.guiders[0] = core.guider("sd15", plain)
    assert torch.equal(alone(case, 0, sigmas), before)


def test_hooks_and_loras_of_one_model_in_several_guiders(couple):
    """Three guiders over one model's weights: plain, with a hook and with a LoRA."""
    model = core.build("sd15")
    case = Case.of("sd15", "sd15", "sd15", "stable_audio")
    hooked = core.guider("sd15", model, positive=with_hook(model, core.conditioning("sd15")))
    case.guiders[:3] = [core.guider("sd15", model), hooked, core.guider("sd15", with_lora(model))]
    case.noise[1:3] = [case.noise[0]] * 2
    sigmas = sigmas_of(model)
    singles = [alone(case, i, sigmas) for i in range(3)]
    for one, other in itertools.combinations(singles, 2):
        assert not torch.allclose(one, other, atol=1e-2)
    assert_each_as_alone(couple, case, sigmas, ("euler", "dpmpp_2m"))


def test_all_models_are_loaded_at_once_by_one_estimate(couple, coupler_of, monkeypatch):
    import comfy.model_management as mm
    from comfy.sampler_helpers import estimate_memory

    mm.unload_all_models()
    case, coupler = Case.of("sd15", "flux"), coupler_of("sd15", "flux")
    control = with_control(core.conditioning("sd15"))
    case.guiders[0] = core.guider("sd15", positive=control)
    calls, real = [], mm.load_models_gpu

    def load(models, **options):
        before = len(mm.current_loaded_models)
        real(models, **options)
        calls.append((list(models), options, before, len(mm.current_loaded_models)))

    monkeypatch.setattr(mm, "load_models_gpu", load)
    together(couple(case, coupler=coupler, weight=1.0), case, sigmas_of(case.guiders[0].model_patcher))
    models, options, before, after = calls[0]
    patchers = [guider.model_patcher for guider in case.guiders]
    assert models[:2] == patchers and models[2:] == control[0][1]["control"].get_models()
    assert (before, after) == (0, 3)
    needs = [
        estimate_memory(patcher, z.shape, guider.original_conds)
        for patcher, z, guider in zip(patchers, case.noise, case.guiders)
    ]
    assert options["memory_required"] == max(need[0] for need in needs) + coupler.patcher.model_size()
    assert options["minimum_memory_required"] == max(need[1] for need in needs) + coupler.patcher.model_size()
    # The guiders' own requests find everything there, and the coupler comes last.
    assert [call[3] for call in calls] == [3, 3, 3, 4]
    assert calls[-1][0] == [coupler.patcher] and calls[-1][1] == {"force_full_load": True}


def test_models_that_are_unloaded_on_the_way_come_back(couple, coupler_of):
    """As where the device is too small for all of them, or a preview needs room."""
    import comfy.model_management as mm

    case = Case.of("sd15", "flux")
    case.guiders[0] = core.guider("sd15", with_lora(case.guiders[0].model_patcher))
    for options in ({}, {"coupler": coupler_of("sd15", "flux"), "weight": 3.0}):
        sigmas = sigmas_of(case.guiders[0].model_patcher)
        expected = together(couple(case, **options), case, sigmas)
        calls = []

        def unload(step, x0, x, total, calls=calls):
            calls.append(step)
            mm.unload_all_models()

        results = together(couple(case, **options), case, sigmas, callback=unload)
        assert calls == [0, 1, 2, 3]
        assert all(torch.equal(a, b) for a, b in zip(results, expected))


def test_partly_loaded_models_are_as_whole_ones(couple):
    case = Case.of("sd15", "flux")
    sigmas = sigmas_of(case.guiders[0].model_patcher)
    expected = together(couple(case), case, sigmas)
    part = case.guiders[0].model_patcher.clone()
    part.patch_model(device_to=torch.device("cpu"), lowvram_model_memory=1)
    assert part.model.model_lowvram
    case.guiders[0] = core.guider("sd15", part)
    results = together(couple(case), case, sigmas)
    part.unpatch_model()
    assert all(torch.equal(a, b) for a, b in zip(results, expected))


def test_a_device_too_small_for_the_models_changes_nothing(couple, coupler_of, monkeypatch):
    """The CPU as a device on which the memory manager finds no room: it loads models in part, LoRAs on the fly."""
    import comfy.model_management as mm

    case, coupler = Case.of("sd15", "flux"), coupler_of("sd15", "flux")
    case.guiders[0] = core.guider("sd15", with_lora(case.guiders[0].model_patcher))
    sigmas = sigmas_of(case.guiders[0].model_patcher)
    expected = together(couple(case, coupler=coupler, weight=3.0), case, sigmas)
    mm.unload_all_models()
    monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(mm, "lowvram_available", True)
    monkeypatch.setattr(mm, "vram_state", mm.VRAMState.NORMAL_VRAM)
    room = 1e6  # bytes
    monkeypatch.setattr(
        mm, "get_free_memory", lambda device=None, torch_free_too=False: (room, room) if torch_free_too else room
    )
    loaded = []

    def look(*given):
        loaded.extend(
            (type(one.model.model).__name__, one.model.model.model_lowvram) for one in mm.current_loaded_models
        )

    results = together(couple(case, coupler=coupler, weight=3.0), case, sigmas, callback=look)
    assert set(loaded) == {("BaseModel", True), ("Flux", True), ("Coupler", False)}
    for one, other in zip(results, expected):
        torch.testing.assert_close(one, other, atol=1e-3 * float(other.std()), rtol=1e-3)
    mm.unload_all_models()


def test_the_callback_gets_what_each_model_predicts(couple):
    """In its own units, held streams as they are; the last is what the sampler ends with."""
    case = Case.of("sd15", "flux", "stable_audio", empty=False)
    masks = [torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 20)]
    sigmas, seen = sigmas_of(case.guiders[0].model_patcher), []
    guider = couple(case)
    results = together(guider, case, sigmas, mask=nested(masks), callback=lambda *given: seen.append(given))
    assert [(step, total) for step, _, _, total in seen] == [(i, 4) for i in range(4)]
    with torch.inference_mode():
        clean = guider.model_patcher.model.process_latent_out(seen[-1][1]).unbind()
    for one, other in zip(clean, results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_previews_show_every_stream_by_its_models_own_format(run_node, couple, monkeypatch):
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    case = Case.of("sdxl", "stable_audio", "flux")
    guider = couple(case)
    shown, progress = [], SimpleNamespace(update_absolute=lambda step, total, preview: shown.append(preview))
    monkeypatch.setattr(latent_preview.comfy.utils, "ProgressBar", lambda steps: progress)
    callback = latent_preview.prepare_callback(guider.model_patcher, 2)
    last = {}

    def remember(step, x0, x, total):
        last["x0"] = x0
        callback(step, x0, x, total)

    together(guider, case, torch.tensor([4.0, 1.0, 0.0]), callback=remember)
    assert len(shown) == 2
    image = shown[-1][1]
    expected = []
    for i in (0, 2):  # sounds have no colours
        previewer = latent_preview.get_previewer("cpu", case.guiders[i].model_patcher.model.latent_format)
        expected.append(previewer.decode_latent_to_preview(last["x0"].unbind()[i]))
    assert image.size == (12 + 8, 8)
    for part, box in zip(expected, ((0, 0, 12, 8), (12, 0, 20, 8))):
        pixels, wanted = (torch.tensor(list(one.getdata()), dtype=torch.int) for one in (image.crop(box), part))
        assert (pixels - wanted).abs().max() <= 1


def test_the_small_models_streams_as_two_models(run_node, host, couple, tiny, prompts, empty):
    """One MODEL in two guiders of different kinds, or two loaders; with auxiliary previews on and a held stream."""
    positive, negative = prompts
    other = run_node("CoDiLoadModel", checkpoint="tiny.safetensors")[0]
    streams = [empty(audio=False)["samples"], empty(image=False)["samples"]]
    noise = [torch.randn(z.shape, generator=torch.Generator().manual_seed(i)) for i, z in enumerate(streams)]
    for second in (tiny[0], other):
        (first,) = run_node("CFGGuider", model=tiny[0], positive=positive, negative=negative, cfg=3.0)
        cfgs = {f"cfg_{name}": 2.0 for name in ("image", "video", "audio", "text")}
        (ours,) = run_node("CoDiGuider", model=second, positive=positive, negative=negative, **cfgs)
        case = Case(("image", "audio"), [first, ours], noise, streams)
        sigmas = sigmas_of(tiny[0])
        assert_each_as_alone(couple, case, sigmas, ("euler", "dpmpp_2m", "euler_cfg_pp"))
        masks = [torch.zeros(1, 1, *streams[0].shape[2:]), torch.ones(1, 1, *streams[1].shape[2:])]
        results = together(couple(case), case, sigmas, mask=nested(masks))
        assert torch.equal(results[0], streams[0])
        assert torch.equal(results[1], alone(case, 1, sigmas))


def test_a_guider_of_contexts_beside_others(run_node, couple, versatile, tiny, prompts, empty):
    contexts = [
        run_node("CoDiContextText", prompt_encoders=[versatile[1]], text=[text])
        for text in ("a red star", "two blue hearts")
    ]
    positive, negative = ({f"{name}_{i}": row[k] for i, row in enumerate(contexts, start=1)} for k, name in
                          enumerate(("context", "unconditional")))  # fmt: skip
    mixed = run_node("CoDiMixContexts", contexts=positive, unconditionals=negative, method="attention")
    (ours,) = run_node(
        "CoDiContextGuider", model=versatile[0], positive=mixed[0], negative=mixed[1], cfg=2.0, cfgs={"cfg_2": 4.0}
    )  # fmt: skip
    positive, negative = prompts
    (stock,) = run_node("CFGGuider", model=tiny[0], positive=positive, negative=negative, cfg=3.0)
    (image,) = run_node(
        "CoDiEmptyLatent", model=versatile[0], image=True, video=False, audio=False, text=False, width=0, height=0,
        frames=0, seconds=0.0, batch_size=1,
    )  # fmt: skip
    streams = [image["samples"], empty(image=False)["samples"]]
    noise = [torch.randn(z.shape, generator=torch.Generator().manual_seed(i)) for i, z in enumerate(streams)]
    case = Case(("image", "audio"), [ours, stock], noise, streams)
    assert_each_as_alone(couple, case, sigmas_of(tiny[0]), ("euler", "dpmpp_2m"))


def test_previews_of_one_small_model_in_two_guiders(run_node, couple, tiny, prompts, empty, monkeypatch):
    """Each stream is drawn as in a run of its own, though they share what draws them."""
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    positive, negative = prompts
    names = ("text", "image")
    streams = [
        empty(**{other: other == name for other in ("image", "video", "audio", "text")})["samples"] for name in names
    ]
    guiders = [run_node("CFGGuider", model=tiny[0], positive=positive, negative=negative, cfg=2.0)[0] for _ in names]
    noise = [torch.randn(z.shape, generator=torch.Generator().manual_seed(i)) for i, z in enumerate(streams)]
    case, sigmas, images = Case(names, guiders, noise, streams), torch.tensor([2.0, 0.0]), []
    guider = couple(case)
    joint = latent_preview.get_previewer("cpu", guider.model_patcher.model.latent_format)
    single = latent_preview.get_previewer("cpu", tiny[0].model.latent_format)
    together(
        guider,
        case,
        sigmas,
        callback=lambda step, x0, x, total: images.append(joint.decode_latent_to_preview(x0.unbind()[0])),
    )
    alone_images = []
    for i in range(2):
        with torch.inference_mode():
            guiders[i].sample(
                noise[i], streams[i], sampler(), sigmas, seed=7,
                callback=lambda step, x0, x, total: alone_images.append(single.decode_latent_to_preview(x0)),
            )  # fmt: skip
    text, image = alone_images
    height = max(text.height, image.height)
    scaled = [one.resize((one.width * height // one.height, height)) for one in (text, image)]
    assert images[0].size == (sum(one.width for one in scaled), height)
    left = images[0].crop((0, 0, scaled[0].width, height))
    pixels, wanted = (torch.tensor(list(one.getdata()), dtype=torch.int) for one in (left, scaled[0]))
    # The small model's text is empty, on a white page.
    assert (pixels - wanted).abs().max() <= 1 and wanted.float().mean() > 200


class Stopped(Exception):
    pass


def state_of(case):
    """What sampling might leave on guiders and models."""
    models = [guider.model_patcher.model for guider in case.guiders]
    return (
        [sorted(vars(guider)) for guider in case.guiders],
        [sorted(vars(guider.model_patcher)) for guider in case.guiders],
        [(model.current_patcher, sorted(vars(model))) for model in models],
        [len(guider.model_patcher.hook_backup) + len(guider.model_patcher.backup) for guider in case.guiders],
        [str(guider.model_options) for guider in case.guiders],
    )


def test_nothing_is_left_behind_by_a_hundred_runs(couple, coupler_of):
    """Finished, failed and cancelled ones, with a ControlNet, a hook, a held stream and a coupler."""
    import comfy.model_management as mm

    mm.unload_all_models()
    case, coupler = Case.of("sd15", "flux", "stable_audio"), coupler_of("sd15", "flux", "stable_audio")
    model = case.guiders[0].model_patcher
    hooked = with_hook(model, core.conditioning("sd15"))
    case.guiders[0] = core.guider("sd15", model, positive=with_control(hooked))
    trouble = {}

    def meddle(apply_model, arguments):
        if trouble.get("kind") == "failed":
            raise Stopped
        if trouble.get("kind") == "cancelled":
            mm.interrupt_current_processing()
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    case.guiders[1].model_patcher.set_model_unet_function_wrapper(meddle)
    sigmas = sigmas_of(model, steps=2)
    held = nested([torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 20)])
    outcomes, expected, things, loaded, states = [], {}, [], [], []
    for number in range(100):
        trouble["kind"] = {3: "failed", 7: "cancelled"}.get(number % 10)
        mask = held if number % 2 else None
        try:
            results = together(couple(case, coupler=coupler, weight=2.0), case, sigmas, mask=mask)
            outcomes.append("done")
            first = expected.setdefault(number % 2, results)
            assert all(torch.equal(a, b) for a, b in zip(results, first))
        except Stopped:
            outcomes.append("failed")
        except mm.InterruptProcessingException:
            outcomes.append("cancelled")
        results = first = None
        states.append(state_of(case))
        if number % 20 == 19:
            things.append(alive())
            loaded.append(len(mm.current_loaded_models))
    assert [outcomes.count(kind) for kind in ("done", "failed", "cancelled")] == [80, 10, 10]
    assert all(state == states[0] for state in states)
    assert all(now == things[0] for now in things), things
    assert loaded == [5] * 5  # three models, the ControlNet and the coupler
    mm.unload_all_models()
    assert mm.current_loaded_models == []


def test_cancelling_works_within_a_step(couple):
    """The second model does not run any more once the user has cancelled during the first."""
    import comfy.model_management as mm

    case, ran = Case.of("sd15", "flux"), []

    def watch(name):
        def run(apply_model, arguments):
            ran.append(name)
            if len(ran) == 3:
                mm.interrupt_current_processing()
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

        return run

    for guider, name in zip(case.guiders, case.names):
        guider.model_patcher.set_model_unet_function_wrapper(watch(name))
    with pytest.raises(mm.InterruptProcessingException):
        together(couple(case), case, sigmas_of(case.guiders[0].model_patcher, steps=5))
    assert ran == ["sd15", "flux", "sd15"]


def test_a_dropped_coupled_guider_frees_its_models(couple, coupler_of):
    import weakref

    import comfy.model_management as mm

    case = Case.of("sd15", "stable_audio")
    guider = couple(case, coupler=coupler_of("sd15", "stable_audio"), weight=1.0)
    together(guider, case, sigmas_of(case.guiders[0].model_patcher, steps=2))
    models = [weakref.ref(one.model_patcher.model) for one in case.guiders]
    models.append(weakref.ref(guider.coupler.coupler))
    del guider, case
    gc.collect()
    assert [model() for model in models] == [None] * 3
    mm.unload_all_models()
