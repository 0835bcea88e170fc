"""The memory manager can move everything that is loaded."""

import gc
import weakref

import pytest
import torch


def left_behind(patcher) -> list[str]:
    """Parameters and buffers that a partial load could not move, by the names of their modules.

    Loading to the meta device with almost no budget: what is neither there nor in a layer of ComfyUI's that casts when
    it is used would stay on the CPU and fail beside a GPU.
    """
    patcher = patcher.clone()
    device = torch.device("meta")
    try:
        patcher.patch_model(device_to=device, lowvram_model_memory=1)
        return [
            f"{name}.{tensor}"
            for name, module in patcher.model.named_modules()
            if not getattr(module, "comfy_cast_weights", False)
            for tensor, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            if value.device != device
        ]
    finally:
        patcher.unpatch_model()


@pytest.fixture
def loaded(run_node):
    """A checkpoint of this test's own, since the audit ruins it."""
    return run_node("CoDiLoadModel", checkpoint="tiny.safetensors")


def test_no_part_of_the_diffuser_is_left_behind(loaded):
    # The schedule's tables are moved by the sampler as it needs them.
    assert left_behind(loaded[0]) == ["model_sampling.sigmas", "model_sampling.log_sigmas"]


def test_no_part_of_the_text_encoder_is_left_behind(loaded):
    assert left_behind(loaded[1].patcher) == []


def test_nothing_stays_loaded(host, run_node, sample, empty, tiny):
    import comfy.model_management as mm

    samples = {"samples": host.module("nodes.streams").join(sample(empty()))}
    run_node("CoDiDecodeImage", samples=samples, vae=tiny[2])
    run_node("CoDiDecodeAudio", samples=samples, audio_vae=tiny[3])
    patchers = [tiny[0], tiny[1].patcher, tiny[2].patcher, tiny[3].patcher]
    assert {id(entry.model.model) for entry in mm.current_loaded_models} >= {id(p.model) for p in patchers}
    mm.unload_all_models()
    assert mm.current_loaded_models == []


def test_a_dropped_model_is_freed(host, run_node):
    import comfy.model_management as mm

    model, text_encoder, vae, audio_vae = run_node("CoDiLoadModel", checkpoint="tiny.safetensors")
    mm.load_models_gpu([model, text_encoder.patcher, vae.patcher, audio_vae.patcher])
    networks = [weakref.ref(part.model) for part in (model, text_encoder.patcher, vae.patcher, audio_vae.patcher)]
    del model, text_encoder, vae, audio_vae
    mm.unload_all_models()
    gc.collect()
    assert [network() for network in networks] == [None] * 4


def test_partial_load_changes_nothing(sample, empty, tiny):
    whole = sample(empty())
    part = tiny[0].clone()
    part.patch_model(device_to=torch.device("cpu"), lowvram_model_memory=1)
    assert all(torch.equal(a, b) for a, b in zip(whole, sample(empty(), part), strict=True))
    part.unpatch_model()


def test_patcher_can_be_built_anew(sample, empty, tiny):
    build, arguments = tiny[0].cached_patcher_init
    with torch.inference_mode():
        other = build(*arguments, disable_dynamic=True)
    assert all(torch.equal(a, b) for a, b in zip(sample(empty()), sample(empty(), other), strict=True))


def test_estimate_covers_an_image_and_a_sound(tiny):
    image, both = ([2, 1, 4 * 64], [2, 1, 4 * 64 + 8 * 256])
    model = tiny[0].model
    assert 0 < model.memory_required(image) < model.memory_required(both, cond_shapes={})
