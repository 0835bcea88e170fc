"""Weights that are no numbers, or would be none in another precision, are found where they enter."""

import json

import pytest
import tiny
import torch
from checkpoints import test_codi
from safetensors.torch import load_file, save_file

from codi_backend.checkpoints.convert import convert
from codi_backend.checkpoints.inspect import inspect
from codi_backend.checkpoints.native import read_parts, save_parts
from codi_backend.checkpoints.weight_values import count_not_finite, extremes
from codi_backend.cli.main import main
from codi_backend.pipeline import CoDi

as_published, small, small_state = test_codi.as_published, test_codi.small, test_codi.small_state

WEIGHT, BIAS = "diffuser.image.time_embed.0.weight", "diffuser.image.time_embed.0.bias"
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def spoiled(path, checkpoint, changes):
    """The tiny checkpoint with single values changed."""
    tensors = load_file(checkpoint)
    for key, values in changes.items():
        tensors[key].view(-1)[: len(values)] = torch.tensor(values)
    save_file(tensors, path, {"codi_config": tiny.CONFIG.to_json()})
    return path


@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes_and_counts(dtype):
    value = torch.tensor([[0.5, -2.0, 1.0], [0.0, 3.0, 1.0]]).to(dtype)
    assert extremes(value) == (-2.0, 3.0) and count_not_finite(value) == 0
    value[0, 1] = value[1, 1] = torch.nan
    assert count_not_finite(value) == 2
    assert extremes(torch.empty(0, dtype=dtype)) == (0.0, 0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_load(tmp_path, checkpoint, value, dtype):
    path = spoiled(tmp_path / "a.safetensors", checkpoint, {BIAS: [value]})
    message = (
        r"^diffuser.image of a.safetensors holds values that are not finite .* in time_embed.0.bias: fetch or train"
    )
    with pytest.raises(ValueError, match=message):
        CoDi.load(path, dtype=dtype)
    assert CoDi.load(path, only=["diffuser.audio"], dtype=dtype).outputs == ()


def test_load_of_too_large_values(tmp_path, checkpoint):
    path = spoiled(tmp_path / "a.safetensors", checkpoint, {BIAS: [1e5], WEIGHT: [-3e5]})
    message = "holds values up to 300000 in time_embed.0.weight, time_embed.0.bias, where float16 ends at "
    with pytest.raises(ValueError, match=f"^diffuser.image of a.safetensors {message}65504: choose bf16 or fp32"):
        CoDi.load(path, dtype=torch.float16)
    assert CoDi.load(path, dtype=torch.bfloat16).diffuser.networks["image"].time_embed[0].bias[0] == 99840
    assert CoDi.load(path).diffuser.networks["image"].time_embed[0].bias[0] == 1e5


def test_the_largest_half_precision_numbers_stay(tmp_path, checkpoint):
    path = spoiled(tmp_path / "a.safetensors", checkpoint, {BIAS: [65504.0, 65519.0]})
    bias = CoDi.load(path, dtype=torch.float16).diffuser.networks["image"].time_embed[0].bias
    assert bias[:2].tolist() == [65504.0, 65504.0]


def test_types_of_weights(checkpoint):
    with pytest.raises(ValueError, match="^Weights cannot be converted to torch.int8: choose a floating-point type"):
        CoDi.load(checkpoint, dtype=torch.int8)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_eight_bits_are_read(tmp_path, checkpoint, dtype):
    tensors = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in load_file(checkpoint).items()
    }
    save_file(tensors, tmp_path / "a.safetensors", {"codi_config": tiny.CONFIG.to_json()})
    loaded = CoDi.load(tmp_path / "a.safetensors")
    expected = tensors[WEIGHT].float()
    assert torch.equal(loaded.diffuser.networks["image"].time_embed[0].weight, expected)
    assert inspect(tmp_path / "a.safetensors").sound
    tensors[BIAS] = torch.full_like(tensors[BIAS], torch.nan)
    save_file(tensors, tmp_path / "b.safetensors", {"codi_config": tiny.CONFIG.to_json()})
    with pytest.raises(ValueError, match="not finite .* in time_embed.0.bias"):
        CoDi.load(tmp_path / "b.safetensors")
    assert inspect(tmp_path / "b.safetensors").files[0].parts[3].not_finite == {"time_embed.0.bias": 128}


def test_scales_of_published_weights_are_not_dropped_silently(tmp_path, as_published, small_state):
    scale = {"model.diffusion_model.unet_audio.time_embed.0.scale_weight": torch.ones(1)}
    path = test_codi.split(small_state | scale, tmp_path)["CoDi_audio_diffuser_m.pth"]
    with pytest.raises(ValueError, match="holds diffuser.audio with scales beside its weights .time_embed.0.scale_"):
        CoDi.load(path)


def test_published_weights_and_state_dicts(tmp_path, as_published, small, small_state):
    key = "model.diffusion_model.unet_audio.out.0.bias"
    bad = small_state | {key: torch.full_like(small_state[key], torch.nan)}
    path = test_codi.split(bad, tmp_path)["CoDi_audio_diffuser_m.pth"]
    with pytest.raises(ValueError, match="^diffuser.audio of CoDi_audio_diffuser_m.pth .* not finite .* in out.0.bias"):
        CoDi.load(path)
    with pytest.raises(ValueError, match="^The state dict's diffuser.audio holds values that are not finite"):
        CoDi.from_state_dict(bad, small.config)
    [part] = inspect(path).files[0].parts
    assert part.not_finite == {"out.0.bias": len(bad[key])}


def test_inspect_counts_them(tmp_path, checkpoint, capsys):
    changes = {
        BIAS: [torch.nan, torch.inf],
        WEIGHT: [-torch.inf],
        "autoencoders.audio.vae.encoder.conv_in.bias": [torch.nan],
    }
    path = spoiled(tmp_path / "a.safetensors", checkpoint, changes)
    assert main(["inspect", str(path)]) == 1
    out = capsys.readouterr().out
    assert "PROBLEM: a.safetensors holds 3 values of diffuser.image that are not finite (NaN or infinity), " in out
    assert "2 in time_embed.0.bias" in out and "1 in time_embed.0.weight" in out
    assert main(["inspect", str(path), "--json"]) == 1
    [file] = json.loads(capsys.readouterr().out)["files"]
    counts = {part["name"]: part["not_finite"] for part in file["parts"]}
    assert counts.pop("diffuser.image") == {"time_embed.0.bias": 2, "time_embed.0.weight": 1}
    assert counts.pop("autoencoders.audio") == {"vae.encoder.conv_in.bias": 1} and not any(counts.values())
    assert main(["inspect", str(path), "--names-only"]) == 0


def test_inspect_compares_check_sums(tmp_path, as_published, small_state):
    path = test_codi.split(small_state, tmp_path)["CoDi_audio_diffuser_m.pth"]
    value = small_state["model.diffusion_model.unet_audio.time_embed.0.weight"]
    data = bytearray(path.read_bytes())
    data[data.index(value.numpy().tobytes()[:64])] ^= 1
    path.write_bytes(data)
    findings = inspect(path)
    assert not findings.sound and not inspect(path, values=False).files[0].problem
    assert "CoDi_audio_diffuser_m.pth is damaged: the check sum of" in str(findings)


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_convert_writes_nothing_if_a_value_does_not_fit(tmp_path, checkpoint, capsys, force):
    path = spoiled(tmp_path / "a.safetensors", checkpoint, {"prompt_encoders.text.text_projection.weight": [7e4]})
    out = tmp_path / "out"
    assert main(["convert", str(path), "--out", str(out), "--dtype", "fp16", *force]) == 1
    message = "holds values up to 70000 in text_projection.weight, where float16 ends at 65504: choose bf16 or fp32"
    assert capsys.readouterr().err == f"codi: prompt_encoders.text of a.safetensors {message}.\n" and not out.exists()
    written = list(convert(path, out, "bf16"))
    assert (
        len(written) == 5
        and read_parts(out).parts["prompt_encoders.text"]["text_projection.weight"].view(-1)[0] == 70144
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, "half"])
def test_convert_to_an_unknown_type(tmp_path, checkpoint, dtype):
    with pytest.raises(ValueError, match="is no type of weights here: choose one of fp32, fp16, bf16, fp8, int8"):
        list(convert(checkpoint, tmp_path / "out", dtype))
    assert not (tmp_path / "out").exists()


def test_convert_of_what_is_not_finite(tmp_path, checkpoint):
    path = spoiled(tmp_path / "a.safetensors", checkpoint, {BIAS: [torch.nan]})
    with pytest.raises(ValueError, match="^diffuser.image of a.safetensors .* not finite"):
        list(convert(path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "dtype", "message"), [(torch.nan, None, "not finite"), (1e6, torch.float16, "up to 1e\\+06")]
)
def test_save_parts(tmp_path, codi, value, dtype, message):
    states = tiny.states(codi)
    states["diffuser.image"]["time_embed.0.bias"][3] = value
    with pytest.raises(ValueError, match=f"^diffuser.image for a.safetensors holds values .*{message}"):
        save_parts(tmp_path / "a.safetensors", codi.config, states, dtype=dtype)
    assert not list(tmp_path.iterdir())
