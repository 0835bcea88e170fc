"""Which files a checkpoint is made of: folders, models in several files, parts in two files."""

import shutil

import pytest
import tiny
import torch
from checkpoints import test_codi

from codi_backend.checkpoints.files import missing_shards, resolve
from codi_backend.checkpoints.inspect import inspect
from codi_backend.checkpoints.native import read_parts, save_parts
from codi_backend.checkpoints.parts import part_names
from codi_backend.cli.main import main
from codi_backend.pipeline import CoDi

as_published, small, small_state = test_codi.as_published, test_codi.small, test_codi.small_state
PART = "diffuser.image"


@pytest.fixture
def shards(tmp_path, codi):
    """The tiny model in a folder, one part of it in two files."""
    folder = tmp_path / "model"
    folder.mkdir()
    for part, state in tiny.states(codi).items():
        if part != PART:
            save_parts(folder / f"tiny_{part}.safetensors", codi.config, {part: state})
            continue
        keys = list(state)
        for number, some in enumerate((keys[::2], keys[1::2]), 1):
            save_parts(
                folder / f"tiny_{part}-{number}-of-2.safetensors", codi.config, {part: {k: state[k] for k in some}}
            )
    return folder


@pytest.mark.parametrize("model", ["mini", "emoji", "vd-mini"])
def test_the_shipped_models_are_sound(model, capsys):
    assert main(["inspect", model]) == 0
    out = capsys.readouterr().out
    assert "PROBLEM" not in out and "do not hold" not in out
    assert {line.split()[0] for line in out.splitlines() if line.startswith("  ")} >= set(
        part_names(read_parts(model).config)
    )


def test_a_folder_is_a_model(shards, codi, tmp_path, capsys):
    (shards / "readme.md").write_text("about")
    (shards / "._tiny_x.safetensors").write_bytes(b"\0\x05\x16\x07 of macOS")
    assert not tiny.changed(codi.state_dict(), CoDi.load(shards).state_dict())
    assert main(["inspect", str(shards)]) == 0
    out = capsys.readouterr().out
    assert out.count(f"  {PART} ") == 2 and "PROBLEM" not in out
    assert main(["convert", str(shards), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert not tiny.changed(codi.state_dict(), CoDi.load(tmp_path / "out").state_dict())


def test_endings_in_any_case(shards, codi):
    for number, path in enumerate(sorted(shards.iterdir())):
        path.rename(path.with_suffix((".SafeTensors", ".sft", ".SFT", ".pth", ".CKPT", ".bin")[number]))
    assert not tiny.changed(codi.state_dict(), CoDi.load(shards).state_dict())


def test_a_missing_shard_is_named(shards):
    (shards / f"tiny_{PART}-2-of-2.safetensors").unlink()
    name = rf"tiny_{PART}-1-of-2.safetensors lacks \d+ of the \d+ tensors of {PART}, such as .*: "
    message = f"^{name}add tiny_{PART}-2-of-2.safetensors, which is not among the files"
    with pytest.raises(ValueError, match=message):
        CoDi.load(shards)
    findings = inspect(shards)
    problems = [part.problem for file in findings.files for part in file.parts if part.problem]
    assert len(problems) == 1 and not findings.sound
    with pytest.raises(ValueError, match=message):
        raise ValueError(problems[0])


def test_names_of_shards():
    assert missing_shards(["a-1-of-2.safetensors", "a-2-of-2.safetensors", "b.pth"]) == []
    assert missing_shards(["a-00002-of-00003.sft"]) == ["a-00001-of-00003.sft", "a-00003-of-00003.sft"]


def test_one_part_in_two_files_is_reported(shards, codi):
    twice = shards / "old.safetensors"
    save_parts(twice, codi.config, {"autoencoders.image": tiny.states(codi)["autoencoders.image"]}, dtype=torch.float16)
    message = (
        r"^old.safetensors and tiny_autoencoders.image.safetensors both hold autoencoders.image: load only one of them"
    )
    for read in (read_parts, CoDi.load):
        with pytest.raises(ValueError, match=message):
            read(shards)
    findings = inspect(shards)
    problems = [part.problem for file in findings.files for part in file.parts if part.problem]
    assert len(problems) == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(problems[0])


def test_published_files_that_overlap(tmp_path, as_published, small, small_state):
    def keep(key):
        return key.startswith(("model.diffusion_model.unet_audio.", "clap."))

    paths = test_codi.split(small_state, tmp_path, drop=lambda key: not keep(key))
    encoders, audio = paths["CoDi_encoders.pth"], paths["CoDi_audio_diffuser_m.pth"]
    stored, key = torch.load(encoders), "model.diffusion_model.unet_audio.out.0.bias"
    expected = small.diffuser.networks["audio"].state_dict()

    def loaded(files):
        return CoDi.load(files, only=["diffuser.audio"]).diffuser.networks["audio"].state_dict()

    torch.save(stored | {key: small_state[key]}, encoders)
    assert not tiny.changed(expected, loaded(tmp_path)) and inspect(tmp_path).sound
    # Other values: those in the file that is published for the part count, whatever the order.
    torch.save(stored | {key: small_state[key] + 1}, encoders)
    for order in ([encoders, audio], [audio, encoders]):
        with pytest.warns(UserWarning, match="both hold diffuser.audio: CoDi_audio_diffuser_m.pth is used"):
            assert not tiny.changed(expected, loaded(order))
    # Neither of two copies is in the file that is published for the part.
    shutil.move(audio, tmp_path / "audio.pth")
    message = "^CoDi_encoders.pth and audio.pth both hold diffuser.audio, "
    message += "with different values of .*out.0.bias: load only"
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path)
    problems = [part.problem for file in inspect(tmp_path).files for part in file.parts if part.problem]
    assert (
        len(problems) == 1 and "CoDi_encoders.pth and audio.pth both hold diffuser.audio, with different" in problems[0]
    )


def test_a_published_part_in_two_files(tmp_path, as_published, small, small_state):
    audio = {key: v for key, v in small_state.items() if key.startswith("model.diffusion_model.unet_audio.")}
    state = list(audio.items())
    torch.save(dict(state[::2]), tmp_path / "CoDi_audio_diffuser_m-1-of-2.pth")
    torch.save(dict(state[1::2]), tmp_path / "CoDi_audio_diffuser_m-2-of-2.pth")
    loaded = CoDi.load(tmp_path).diffuser.networks["audio"]
    assert not tiny.changed(small.diffuser.networks["audio"].state_dict(), loaded.state_dict())
    assert inspect(tmp_path).sound


def test_a_file_that_is_given_twice_counts_once(tmp_path, codi, checkpoint):
    again = checkpoint.parent / ".." / checkpoint.parent.name / checkpoint.name
    assert resolve([checkpoint, again, checkpoint.parent]) == [checkpoint]
    assert not tiny.changed(codi.state_dict(), CoDi.load([checkpoint, again]).state_dict())


def test_shipped_models_may_stand_among_others(tmp_path, checkpoint):
    files = resolve(["mini", checkpoint, "vd-mini"])
    assert files == [*resolve("mini"), checkpoint, *resolve("vd-mini")]


def test_a_folder_without_checkpoints(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"codi: The folder {tmp_path} has no checkpoint files: choose one")


def test_files_of_two_kinds(tmp_path, checkpoint, as_published, small_state):
    audio = test_codi.split(small_state, tmp_path)["CoDi_audio_diffuser_m.pth"]
    with pytest.raises(ValueError, match="^tiny.safetensors is a file of this pack and CoDi_audio_diffuser_m.pth a"):
        read_parts([audio, checkpoint])
