"""Coupled runs: the coupler's correction, callbacks, previews, and CoDi's own models and guiders."""

from types import SimpleNamespace

import pytest
import torch
from host.core_models import sigmas_of
from host.coupled_runs import Case, alone, assert_each_as_alone, nested, sampler, together


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
