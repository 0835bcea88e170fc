"""`codi convert`: one file a part, of the same weights."""

import re

import pytest
import tiny
import torch
from checkpoints import test_codi
from safetensors import safe_open

from codi_backend.checkpoints.convert import convert
from codi_backend.checkpoints.native import read_parts, save_parts
from codi_backend.checkpoints.parts import part_names
from codi_backend.cli.main import main
from codi_backend.pipeline import CoDi

as_published, small, small_state = test_codi.as_published, test_codi.small, test_codi.small_state
split = test_codi.split


@pytest.fixture
def published_files(tmp_path, as_published, small_state):
    return [str(path) for path in split(small_state, tmp_path).values()]


def test_published_files_become_ours_bit_for_bit(tmp_path, published_files, small, capsys):
    out = tmp_path / "deep" / "out"
    assert main(["convert", *published_files, "--out", str(out), "--dtype", "fp32"]) == 0
    names = {f"{small.config.name}_{part}.safetensors" for part in part_names(small.config)}
    assert {path.name for path in out.iterdir()} == names
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names)
    for line in lines:
        path, amount = re.fullmatch(r"(.*)  (\d+\.\d\d) MB", line).groups()
        assert float(amount) == round((out / path).stat().st_size / 1e6, 2)
    codi = CoDi.load(sorted(out.iterdir()))
    assert codi.config == small.config and codi.report.edition == "codi-any-to-any"
    assert not tiny.changed(small.state_dict(), codi.state_dict())


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), (None, torch.float32)])
def test_precision(tmp_path, checkpoint, codi, name, dtype):
    arguments = ["--dtype", name] if name else []
    assert main(["convert", str(checkpoint), "--out", str(tmp_path), *arguments]) == 0
    read = read_parts(tmp_path.iterdir())
    for part, state in tiny.states(codi).items():
        expected = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
        assert read.parts[part].keys() == expected.keys() and not tiny.changed(expected, read.parts[part])


def test_some_parts_are_a_model_of_their_own(tmp_path, published_files, small):
    only = ["prompt_encoders.text", "diffuser.audio", "autoencoders.audio"]
    out = tmp_path / "out"
    written = list(convert(published_files, out, only=only))
    assert sorted(written) == sorted(out.iterdir()) and len(written) == 3
    codi = CoDi.load(written)
    assert sorted(codi.parts()) == sorted(only) and codi.outputs == ("audio",)
    for part, module in codi.parts().items():
        assert not tiny.changed(small.parts()[part].state_dict(), module.state_dict())


def test_the_first_edition_stays_without_alignment(tmp_path, as_published, small_state):
    paths = split(small_state, tmp_path, drop=lambda key: "connecter" in key)
    with pytest.warns(UserWarning, match="no latent alignment") as caught:
        written = list(convert(paths["CoDi_audio_diffuser_m.pth"], tmp_path / "out"))
    assert len(caught) == 1
    assert not any(network.aligned for network in CoDi.load(written).config.diffuser.networks.values())


def test_training_records_stay_with_their_parts(tmp_path, codi):
    parts = sorted(codi.parts())
    one = tiny.save(tmp_path / "1.safetensors", codi, parts[:1], training=[{"stage": "a"}])
    two = tiny.save(tmp_path / "2.safetensors", codi, parts[1:2], training=[{"stage": "b"}, {"stage": "c"}])
    stages = [[r["stage"] for r in read_parts(path).training] for path in convert([one, two], tmp_path / "out")]
    assert stages == [["a"], ["b", "c"]]


def test_nothing_is_overwritten_unless_asked_for(tmp_path, checkpoint, capsys):
    target = tmp_path / "tiny_diffuser.audio.safetensors"
    target.write_text("precious")
    command = ["convert", str(checkpoint), "--out", str(tmp_path)]
    assert main(command) == 1
    assert re.fullmatch(rf"codi: {target} exists: .*--force.\n", capsys.readouterr().err)
    assert target.read_text() == "precious" and list(tmp_path.iterdir()) == [target]
    assert main([*command, "--force"]) == 0
    assert len(CoDi.load(tmp_path.iterdir()).parts()) == 5


def test_a_file_can_be_converted_onto_itself(tmp_path, codi):
    path = tiny.save(tmp_path / "tiny_diffuser.audio.safetensors", codi, ["diffuser.audio"])
    assert main(["convert", str(path), "--out", str(tmp_path), "--dtype", "bf16", "--force"]) == 0
    with safe_open(path, "pt") as file:
        assert file.get_tensor("diffuser.audio.time_embed.0.weight").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pth"], "no checkpoint file nowhere.pth"),
        (["{checkpoint}", "--only", "diffuser.smell"], "has no diffuser.smell"),
    ],
)
def test_mistakes_are_one_line(tmp_path, checkpoint, capsys, arguments, message):
    out = tmp_path / "out"
    assert main(["convert", *(a.format(checkpoint=checkpoint) for a in arguments), "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert re.fullmatch("codi: .+\n", captured.err) and message in captured.err
    assert captured.out == "" and not out.exists()


def test_an_incomplete_part_is_not_converted(tmp_path, codi):
    state = tiny.states(codi)["diffuser.audio"]
    state.pop("time_embed.0.bias")
    save_parts(tmp_path / "a.safetensors", codi.config, {"diffuser.audio": state})
    with pytest.raises(ValueError, match="a.safetensors lacks 1 of the .* of diffuser.audio"):
        list(convert(tmp_path / "a.safetensors", tmp_path / "out"))
