"""What surrounds coupled runs: patches of models, memory, cancelling, and a hundred runs that leave nothing behind."""

import gc
import itertools
import weakref

import pytest
import torch
from host import core_models as core
from host.core_models import sigmas_of
from host.core_patches import with_control, with_hook, with_lora
from host.coupled_runs import Case, alone, assert_each_as_alone, nested, together
from host.test_host_soak import alive


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
