"""Quantised files: what is quantised, how far it is off, and what is wrong with files that cannot be read."""

import json
import re

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from codi_backend.checkpoints.codi import CONFIG
from codi_backend.checkpoints.convert import convert
from codi_backend.checkpoints.inspect import inspect
from codi_backend.checkpoints.native import read_parts
from codi_backend.checkpoints.parts import build
from codi_backend.checkpoints.quantisation import FORMATS, dequantised, quantisable_layers, quantised_layers
from codi_backend.cli.main import main
from codi_backend.models.quantised import QuantisedLayer
from codi_backend.pipeline import CoDi

DTYPES = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
# Of one weight, relative to the largest: half a step of int8; half a step of fp8 in the largest binade, 256 to 448.
STEPS = {"fp8": 16 / 448, "int8": 0.5 / 127}


@pytest.fixture(scope="module")
def whole():
    return tiny.build(tiny.FOUR)


@pytest.fixture(scope="module")
def files(whole, tmp_path_factory):
    """Files of a model of all modalities, in each format."""
    folder = tmp_path_factory.mktemp("quantised")
    path = tiny.save(folder / "whole.safetensors", whole)
    return {dtype: list(convert(path, folder / dtype, dtype)) for dtype in DTYPES}


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_layers_are_quantised_and_all_else_is_in_half_precision(whole, files, dtype):
    read = read_parts(files[dtype])
    for part, module in whole.parts().items():
        state = read.parts[part]
        layers = set(quantised_layers(state))
        assert bool(layers) == part.startswith(("diffuser", "prompt_encoders"))
        for key, value in module.state_dict().items():
            layer, _, name = key.rpartition(".")
            if name == "weight" and layer in layers:
                assert isinstance(module.get_submodule(layer), (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
                assert state[key].dtype == DTYPES[dtype]
                assert json.loads(bytes(state[f"{layer}.comfy_quant"].tolist()))["format"] == FORMATS[dtype].name
                off = (state[key].float() * state[f"{layer}.weight_scale"] - value).abs().max()
                assert 0 < off <= 1.001 * STEPS[dtype] * value.abs().max()
            elif value.is_floating_point():
                assert torch.equal(state[key], value.half())


def test_the_published_models_of_video_with_audio_take_3_gb():
    total = 0
    parts = ("diffuser.image", "diffuser.audio", "prompt_encoders.text", "autoencoders.image", "autoencoders.audio")
    for part in parts:
        with torch.device("meta"):
            network = build(part, CONFIG)
        small = {f"{layer}.weight" for layer in quantisable_layers(part, network)}
        total += sum(value.numel() * (1 if key in small else 2) for key, value in network.state_dict().items())
    assert 2.7e9 < total < 3e9


def test_first_and_last_layers_stay(whole, files):
    read = read_parts(files["fp8"])
    layers = {part: set(quantised_layers(read.parts[part])) for part in read.parts}
    for name, network in whole.diffuser.networks.items():
        environment = len(network.environment_encoder) - 1
        kept = {"time_embed.0", "time_embed.2", "input_blocks.0.0", "out.2", "environment_encoder.0.0"}
        kept |= {f"environment_encoder.{environment}.2"}
        names = {key for key, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d, nn.Conv3d))}
        assert kept <= names
        assert names - layers[f"diffuser.{name}"] == kept | {key for key in names if "rel_pos_bias" in key}
    assert "text_projection" not in layers["prompt_encoders.text"]
    assert {"visual_projection", "patch_embedding"}.isdisjoint(layers["prompt_encoders.image"])
    assert {"patch_embedding.proj", "audio_projection.0"}.isdisjoint(layers["prompt_encoders.audio"])


@pytest.mark.parametrize(("dtype", "most"), [("fp8", 0.25), ("int8", 0.06)])
def test_the_library_computes_with_the_dequantised_weights(whole, files, tmp_path, dtype, most):
    codi = CoDi.load(files[dtype])
    plain = CoDi.load(list(convert(files[dtype], tmp_path, "fp32")))
    for name, content in {"text": "two red stars", "image": torch.rand(1, 3, 40, 40)}.items():
        one, two, three = (model.prompt(name, content).embedding for model in (codi, plain, whole))
        assert _error(one, two) < 1e-5 and 0 < _error(one, three) < most
    generator = torch.Generator().manual_seed(1)
    latents = {
        name: torch.randn(1, *whole.latent_shape(name), generator=generator) for name in ("video", "audio", "text")
    }
    context = whole.prompt("text", "two red stars").embedding.clone()
    with torch.no_grad():
        one, two, three = (model.diffuser(latents, torch.tensor([500]), context) for model in (codi, plain, whole))
    for name in latents:
        assert _error(one[name], two[name]) < 1e-4 and 0 < _error(one[name], three[name]) < most


def _error(value, reference):
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_weights_stay_quantised_in_memory(files, precision):
    codi = CoDi.load(files["fp8"], dtype=precision)
    layers = [module for module in codi.modules() if isinstance(module, QuantisedLayer)]
    assert layers
    # Moving the model to another type neither casts the weights nor their scales.
    for model in (codi, codi.to(torch.float64)):
        assert all(layer.weight.dtype == torch.float8_e4m3fn for layer in layers)
        assert all(layer.weight_scale.dtype == torch.float32 for layer in layers)
        assert model.generate_latents(model.prompt("text", "red"), ["audio"], steps=2)["audio"].isfinite().all()


def test_files_and_a_loaded_model_hold_the_same_tensors(files):
    codi = CoDi.load(files["int8"], dtype=torch.float16)
    read = read_parts(files["int8"])
    for part, module in codi.parts().items():
        assert not tiny.changed(read.parts[part], module.state_dict())
        assert module.state_dict().keys() == read.parts[part].keys()


def test_quantised_files_convert_back(whole, files, tmp_path):
    back = CoDi.load(list(convert(files["int8"], tmp_path / "fp32", "fp32")))
    assert not any(isinstance(module, QuantisedLayer) for module in back.modules())
    read = read_parts(files["int8"])
    for part, module in back.parts().items():
        expected = {key: value.float() for key, value in dequantised(read.parts[part]).items()}
        plain = {key: value.float() for key, value in module.state_dict().items()}
        assert not tiny.changed(expected, plain)
    same = read_parts(convert(files["int8"], tmp_path / "same"))
    for part, state in read.parts.items():
        assert not tiny.changed(state, same.parts[part]) and state.keys() == same.parts[part].keys()
    # Quantising again in the same format changes nothing.
    again = read_parts(convert(files["int8"], tmp_path / "again", "int8"))
    for part, state in read.parts.items():
        assert not {key for key in tiny.changed(state, again.parts[part]) if not key.endswith("scale")}


def test_inspect_reports_quantised_parts(files):
    findings = inspect(files["fp8"])
    assert findings.sound
    part = next(p for file in findings.files for p in file.parts if p.name == "diffuser.audio")
    assert part.dtypes == ("float16", "float8_e4m3fn") and part.ignored == 0


def _edited(files, path, edit, part="diffuser.audio"):
    source = next(file for file in files["fp8"] if part in file.name)
    state = load_file(source)
    layer = f"{part}.middle_block.0.in_layers.2"
    edit(state, layer)
    save_file(state, path, {"codi_config": read_parts(files["fp8"]).config.to_json()})
    return path


def _lose(state, layer):
    del state[f"{layer}.weight_scale"]


def _widen(state, layer):
    state[f"{layer}.weight"] = state[f"{layer}.weight"].half()


def _rows(state, layer):
    state[f"{layer}.weight_scale"] = torch.ones(len(state[f"{layer}.weight"]), 1)


def _zero(state, layer):
    state[f"{layer}.weight_scale"] = torch.tensor(0.0)


def _record(text):
    def edit(state, layer):
        state[f"{layer}.comfy_quant"] = torch.tensor(list(text.encode()), dtype=torch.uint8)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_lose, "without its scale: it is damaged; fetch or convert it again"),
        (_widen, "as float8_e4m3fn, but its weight is of float16"),
        (_rows, "scales, and one is read here: make the file with codi convert"),
        (_zero, "with the scale 0, which must be a positive number"),
        (_record('{"format": "nvfp4"}'), "quantised as nvfp4, which is not read here: get it in fp8 or int8"),
        (_record("[]"), "with a damaged comfy_quant"),
        (_record("\xff{"), "with a damaged comfy_quant"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(files, tmp_path, capsys, edit, message):
    path = _edited(files, tmp_path / "bad.safetensors", edit)
    with pytest.raises(ValueError, match=f"bad.safetensors holds middle_block.0.in_layers.2 of .*{message}") as error:
        CoDi.load(path, only=["diffuser.audio"])
    assert main(["convert", str(path), "--out", str(tmp_path / "out"), "--only", "diffuser.audio"]) == 1
    assert re.fullmatch("codi: .*\n", capsys.readouterr().err)
    assert not inspect(path).sound
    assert "\n" not in str(error.value)


def test_not_finite_weights_are_refused(files, tmp_path):
    def spoil(state, layer):
        state[f"{layer}.weight"].view(torch.uint8)[0, 0] = 0x7F  # NaN in fp8

    path = _edited(files, tmp_path / "bad.safetensors", spoil)
    with pytest.raises(ValueError, match="not finite .* middle_block.0.in_layers.2.weight"):
        CoDi.load(path, only=["diffuser.audio"])
