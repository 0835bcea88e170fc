"""`codi inspect`, on files of both kinds, whole and not."""

import dataclasses
import json
import re

import pytest
import tiny
import torch
from checkpoints import test_codi
from safetensors.torch import load_file, save_file

from codi_backend.checkpoints.inspect import inspect
from codi_backend.checkpoints.parts import part_names
from codi_backend.checkpoints.tensor_file import TensorFile
from codi_backend.cli.main import main

as_published, small, small_state = test_codi.as_published, test_codi.small, test_codi.small_state
split = test_codi.split

AUDIO = "CoDi_audio_diffuser_m.pth"
TRAINING = [{"stage": "diffuser_audio", "options": {"steps": 300}, "minutes": 4.5}]


@pytest.fixture
def published_files(tmp_path, as_published, small_state):
    return split(small_state, tmp_path, extra={"betas": torch.zeros(1000)})


def size(module):
    return sum(value.numel() for value in module.state_dict().values())


def rewrite(path, change):
    state = change(load_file(path))
    save_file(state, path, {"codi_config": tiny.CONFIG.to_json()})


def test_published_files(published_files, small):
    findings = inspect(published_files.values())
    assert findings.sound and not findings.missing
    assert {(file.kind, file.edition, file.model) for file in findings.files} == {
        ("published", "published", small.config.name)
    }
    assert [file.unknown for file in findings.files] == [1] * 4
    parts = {part.name: part for file in findings.files for part in file.parts}
    assert parts.keys() == set(part_names(small.config))
    for name, module in small.parts().items():
        assert (parts[name].found, parts[name].parameters) == (len(module.state_dict()), size(module))
        assert "float32" in parts[name].dtypes and parts[name].megabytes >= 4e-6 * parts[name].parameters


def test_missing_parts_come_with_the_file_that_holds_them(published_files):
    findings = inspect(published_files["CoDi_encoders.pth"])
    assert findings.sound
    assert {part.part: part.file for part in findings.missing} == {
        "diffuser.image": "CoDi_video_diffuser_8frames.pth",
        "diffuser.text": "CoDi_text_diffuser.pth",
        "diffuser.audio": AUDIO,
    }
    assert "do not hold: diffuser.image (CoDi_video_diffuser_8frames.pth), diffuser.text" in str(findings)


def test_further_tensors_are_ignored(tmp_path, as_published, small_state):
    extra = {"model.diffusion_model.unet_audio.connecters_out_old.0.weight": torch.zeros(3)}
    [file] = inspect(split(small_state | extra, tmp_path)[AUDIO]).files
    assert [part.ignored for part in file.parts] == [1] and not file.parts[0].problem


def test_the_first_edition(tmp_path, as_published, small_state, recwarn):
    paths = split(small_state, tmp_path, ".safetensors", drop=lambda key: "connecter" in key)
    findings = inspect(paths.values())
    assert findings.sound and not recwarn
    editions = [file.edition for file in findings.files]
    assert sorted(editions) == ["published", *["published, without latent alignment"] * 3]


def test_what_is_wrong_with_a_part_is_reported(tmp_path, as_published, small_state, capsys):
    prefix = "model.diffusion_model.unet_audio.out.0"
    state = small_state | {f"{prefix}.weight": torch.zeros(3)}
    paths = split(state, tmp_path, drop=lambda key: key.endswith("unet_text.out.0.weight"))
    assert main(["inspect", *map(str, paths.values())]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    problems = re.findall("  PROBLEM: (.*)", captured.out)
    assert len(problems) == 2
    assert any(re.match(r"CoDi_text_diffuser.pth lacks 1 of the \d+ tensors of diffuser.text", p) for p in problems)
    assert any(re.match(rf"{AUDIO} holds out.0.weight of diffuser.audio as \[3\]", p) for p in problems)


def test_files_of_this_pack(tmp_path, codi, capsys):
    whole = tiny.save(tmp_path / "whole.safetensors", codi, training=TRAINING, dtype=torch.float16)
    assert main(["inspect", str(whole)]) == 0
    out = capsys.readouterr().out
    assert re.match(r".*whole.safetensors: \d+\.\d\d MB, this pack's, model tiny, edition codi-any-to-any\n", out)
    assert "  trained: diffuser_audio, 300 steps, 4.5 minutes\n" in out
    for name, module in codi.parts().items():
        row = rf"  {name} +{len(module.state_dict())} +0 +{size(module):,} +\d+\.\d\d  float16\n"
        assert re.search(row, out)
    assert "do not hold" not in out


def test_json(tmp_path, codi, capsys):
    path = tiny.save(tmp_path / "a.safetensors", codi, ["autoencoders.image"], training=TRAINING)
    assert main(["inspect", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    [file] = result["files"]
    assert result["sound"] and file["training"] == TRAINING and file["model"] == "tiny" and file["problem"] is None
    assert [part["name"] for part in file["parts"]] == ["autoencoders.image"]
    assert {m["part"] for m in result["missing"]} == {*codi.parts()} - {"autoencoders.image"}
    assert {(m["model"], m["file"]) for m in result["missing"]} == {("tiny", None)}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "diffuser.image.time_embed.0.bias"}, "lacks 1 of the"),
        (lambda t: {**t, "diffuser.image.time_embed.0.bias": torch.zeros(7)}, r"as \[7\] where \[128\] is needed"),
        (lambda t: {**t, "diffuser.image.flavour": torch.zeros(7)}, "1 tensors that diffuser.image does not have"),
        (lambda t: {**t, "diffuser.smell.weight": torch.zeros(7)}, "diffuser.smell.weight, which belongs to no part"),
        (lambda t: {**t, "weight": torch.zeros(7)}, "holds weight, which belongs to no part of its model"),
    ],
)
def test_damaged_files_of_this_pack(tmp_path, codi, change, problem):
    path = tiny.save(tmp_path / "a.safetensors", codi)
    rewrite(path, change)
    findings = inspect(path)
    assert not findings.sound and re.search(f"PROBLEM: a.safetensors .*{problem}", str(findings))
    assert len(findings.files[0].parts) == 5


def test_one_bad_file_does_not_hide_the_others(tmp_path, codi, checkpoint, published_files):
    cut, foreign, absent = tmp_path / "cut.pth", tmp_path / "lora.safetensors", tmp_path / "absent.pth"
    cut.write_bytes(published_files[AUDIO].read_bytes()[:1000])
    save_file({"model.weight": torch.zeros(2)}, foreign)
    findings = inspect([cut, foreign, absent, checkpoint, published_files[AUDIO]])
    assert not findings.sound
    assert [bool(file.problem) for file in findings.files] == [True] * 3 + [False] * 2
    for file, problem in zip(findings.files, ("cut short", "not a checkpoint of CoDi", "no checkpoint file")):
        assert problem in file.problem
    assert findings.files[2].megabytes is None and "diffuser.audio" not in {m.part for m in findings.missing}


def test_parts_of_several_models(tmp_path, codi):
    other = tiny.build(dataclasses.replace(tiny.CONFIG, name="other"))
    parts = sorted(codi.parts())
    one, two = (
        tiny.save(tmp_path / "1.safetensors", codi, parts[:-1]),
        tiny.save(tmp_path / "2.safetensors", other, parts[1:]),
    )
    findings = inspect([one, two])
    assert findings.sound
    assert [(m.model, m.part) for m in findings.missing] == [("tiny", parts[-1]), ("other", parts[0])]


def test_names_alone_read_no_weight(published_files, monkeypatch):
    class Weightless(TensorFile):
        def __getitem__(self, key):
            return super().__getitem__(key).to("meta")

    expected = inspect(published_files[AUDIO])
    monkeypatch.setattr("codi_backend.checkpoints.native.TensorFile", Weightless)
    assert inspect(published_files[AUDIO], values=False) == expected


def test_missing_mini(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("codi_backend.presets.mini.WEIGHTS", tmp_path)
    assert main(["inspect", "mini"]) == 1
    assert "codi: The shipped model's weights are missing" in capsys.readouterr().err
