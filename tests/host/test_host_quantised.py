"""Quantised files in ComfyUI: they stay quantised in memory, with LoRAs, with little memory, and in all networks."""

import json
import shutil

import pytest
import tiny as models
import torch
from host.core_patches import with_lora
from host.published_files import SMALL

from codi_backend.checkpoints.convert import convert
from codi_backend.config import CoDiConfig
from codi_backend.pipeline import CoDi

STORED = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
# ComfyUI's linear layers quantise the rows of their inputs too where weights are int8.
EXACT = {"fp8": 1e-4, "int8": 0.03}


@pytest.fixture(scope="module")
def quantised(host, tmp_path_factory):
    """Write quantised files of a source into a folder of ``models/codi``, and the same weights in single precision."""
    folders = []

    def write(source, dtype, name):
        folder, plain = host.models / f"{name}_{dtype}", host.models / f"{name}_{dtype}_plain"
        if not folder.exists():
            folders.extend([folder, plain])
            files = list(convert(source, folder, dtype))
            list(convert(files, plain, "fp32"))
            host.forget()
        return f"{folder.name}/", f"{plain.name}/"

    yield write
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(params=STORED)
def dtype(request):
    return request.param


@pytest.fixture
def pair(dtype, host, quantised, run_node):
    """What the loader gives for quantised files of the tiny model, and for the same weights in single precision."""
    folders = quantised(host.models / "tiny.safetensors", dtype, "tiny")
    return [run_node("CoDiLoadModel", checkpoint=folder) for folder in folders]


def weights(network):
    """The quantised weights of a network by the class of their layer."""
    from comfy.quant_ops import QuantizedTensor

    found = {}
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, QuantizedTensor):
            found.setdefault(type(module).__name__, []).append(weight)
    return found


def error(value, reference):
    return float((value - reference).norm() / reference.norm())


def test_all_kinds_of_layers_stay_quantised(pair, dtype):
    (model, encoders, *_), (plain, *_) = pair
    for patcher, kinds in (
        (model, {"Linear", "Conv2d", "Conv3d"}),
        (encoders.text.patcher, {"Linear"}),
        (encoders.image.patcher, {"Linear", "Conv1d"}),
        (encoders.audio.patcher, {"Linear", "Conv2d"}),
    ):
        found = weights(patcher.model)
        assert found.keys() == kinds
        assert all(weight._qdata.dtype == STORED[dtype] for some in found.values() for weight in some)
    assert not weights(plain.model)
    # The tiny model has few large layers: norms, biases and first and last layers are in single precision on a CPU.
    assert model.model_size() < 0.5 * plain.model_size()


def test_sampling_and_prompts_compute_with_the_dequantised_weights(run_node, pair, dtype, empty, sample, tiny):
    (model, encoders, *_), (plain, others, *_) = pair
    inputs = {
        "CoDiPromptText": {"text": "three red stars"},
        "CoDiPromptImage": {"image": torch.rand(1, 40, 40, 3)},
        "CoDiPromptAudio": {"audio": {"waveform": 0.1 * torch.randn(1, 1, 16000), "sample_rate": 16000}},
    }
    for node, given in inputs.items():
        one, other = (run_node(node, prompt_encoders=some, **given)[0][0][0] for some in (encoders, others))
        assert error(one, other) < EXACT[dtype]
    latent = empty(video=True, image=False, text=True)
    one, other, original = (sample(latent, some) for some in (model, plain, tiny[0]))
    for a, b, c in zip(one, other, original, strict=True):
        assert error(a, b) < 3 * EXACT[dtype] and 1e-3 < error(a, c) < 0.5


def test_a_lora_is_added_to_quantised_weights_and_removed(pair, empty, sample):
    (model, *_), (plain, *_) = pair
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    options = {"steps": 1, "cfg": 1.0}
    alone = sample(empty(), model, **options)
    one, other = (sample(empty(), with_lora(some), **options) for some in (model, plain))
    for a, b, c in zip(one, other, alone, strict=True):
        assert error(a, b) < 0.6 * error(c, b)
    again = sample(empty(), model, **options)
    assert all(torch.equal(a, b) for a, b in zip(alone, again, strict=True))
    after = model.model.state_dict()
    assert before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)


def _same(one, other):
    """Whether two tensors are equal, also in 8 bits, which torch compares as bytes only."""
    return torch.equal(*(value.view(torch.uint8) if value.dtype.itemsize == 1 else value for value in (one, other)))


@pytest.mark.parametrize("patch", [lambda model: model.clone(), with_lora], ids=["plain", "lora"])
def test_a_partly_loaded_model_computes_the_same(pair, dtype, patch):
    import comfy.model_management as mm

    (model, *_), (plain, *_) = pair
    part, reference = patch(model), patch(plain)
    mm.unload_all_models()
    noisy = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 16, 8)]
    context = torch.randn(1, 1, 64)

    def predict(patcher, **options):
        patcher.patch_model(device_to=torch.device("cpu"), **options)
        try:
            with torch.inference_mode():
                return patcher.model.diffusion_model(noisy, torch.tensor([500.0]), context)
        finally:
            patcher.unpatch_model()

    for a, b in zip(predict(part, lowvram_model_memory=1), predict(reference), strict=True):
        assert error(a, b) < EXACT[dtype]


def test_partly_loaded_encoders_compute_the_same(pair):
    import comfy.model_management as mm

    encoder = pair[0][1].text
    with torch.inference_mode():
        expected = encoder.encode(["a red star"])
        patcher = encoder.patcher
        mm.unload_all_models()
        patcher.patch_model(device_to=torch.device("cpu"), lowvram_model_memory=1)
        try:
            assert torch.equal(encoder.encode(["a red star"]), expected)
        finally:
            patcher.unpatch_model()


def test_nothing_is_left_behind_on_the_cpu(pair):
    from host.test_host_memory import left_behind

    model, encoders, *_ = pair[0]
    assert left_behind(model) == ["model_sampling.sigmas", "model_sampling.log_sigmas"]
    assert left_behind(encoders.text.patcher) == []


def test_scales_and_records_are_saved_and_moved(pair):
    (model, *_) = pair[0]
    state = {key: value.clone() for key, value in model.model.state_dict().items()}
    records = [key for key in state if key.endswith(".comfy_quant")]
    assert len(records) > 100 and {key.replace("comfy_quant", "weight_scale") for key in records} < state.keys()
    assert {json.loads(bytes(state[key].tolist()))["format"] for key in records} <= {"float8_e4m3fn", "int8_tensorwise"}
    model.model.to("cpu")
    after = model.model.state_dict()
    assert all(_same(state[key], after[key]) for key in state)


def test_versatile_diffusion(host, quantised, run_node, sample, dtype):
    folders = quantised(host.models / "tiny_versatile.safetensors", dtype, "versatile")
    results = []
    for folder in folders:
        model, encoders, *_ = run_node("CoDiLoadModel", checkpoint=folder)
        conditioning = run_node("CoDiContextText", prompt_encoders=[encoders], text=["a star"])
        results.append(sample({"samples": torch.zeros(1, 4, 8, 8)}, model, conditioning=conditioning, steps=2)[0])
    assert error(*results) < EXACT[dtype]


def test_the_published_architecture(quantised, run_node, sample, tmp_path, dtype):
    torch.manual_seed(0)
    small = CoDi(CoDiConfig.from_reference(json.loads(SMALL.read_text())))
    folder = quantised(models.save(tmp_path / "small.safetensors", small), dtype, "published")[0]
    model, encoders, *_ = run_node("CoDiLoadModel", checkpoint=folder)
    assert weights(model.model).keys() == {"Linear", "Conv2d", "Conv3d"}
    conditioning = run_node("CoDiPromptText", prompt_encoders=encoders, text="a star")
    streams = {"image": False, "video": True, "audio": True, "text": False}
    sizes = {"width": 0, "height": 0, "frames": 0, "seconds": 0.0, "batch_size": 1}
    (latent,) = run_node("CoDiEmptyLatent", model=model, **streams, **sizes)
    results = sample(latent, model, conditioning=conditioning, steps=2)
    assert len(results) == 2 and all(result.isfinite().all() for result in results)


@pytest.mark.parametrize(("dtype", "most"), [("fp8", 0.25), ("int8", 0.1)])
def test_the_built_in_model_quantised_stays_near_itself(quantised, run_node, sample, dtype, most):
    results = []
    for checkpoint in (quantised("mini", dtype, "mini")[0], "mini (built in)"):
        model, encoders, *_ = run_node("CoDiLoadModel", checkpoint=checkpoint)
        conditioning = run_node("CoDiPromptText", prompt_encoders=encoders, text="three red stars, slowly")
        streams = {"image": True, "video": False, "audio": True, "text": False}
        sizes = {"width": 0, "height": 0, "frames": 0, "seconds": 0.0, "batch_size": 1}
        (latent,) = run_node("CoDiEmptyLatent", model=model, **streams, **sizes)
        results.append(sample(latent, model, conditioning=conditioning, steps=4))
    for a, b in zip(*results, strict=True):
        assert 0 < error(a, b) < most


def test_an_older_comfyui_without_the_format(quantised, run_node, host, tiny, monkeypatch):
    import comfy.quant_ops

    folder = quantised(host.models / "tiny.safetensors", "int8", "tiny")[0]
    monkeypatch.delitem(comfy.quant_ops.QUANT_ALGOS, "int8_tensorwise")
    with pytest.raises(ValueError, match=r"^checkpoint: the weights are quantised as int8_tensorwise, which this Comf"):
        run_node("CoDiLoadModel", checkpoint=folder)
