"""`codi selfcheck`: the report on good files, and what it finds in others."""

import hashlib
import re

import pytest
import tiny
import torch
from checkpoints import test_codi
from safetensors.torch import load_file, save_file

from codi_backend.checkpoints.convert import convert
from codi_backend.cli.main import main

as_published, small, small_state = test_codi.as_published, test_codi.small, test_codi.small_state


@pytest.fixture
def run(capsys):
    """Run the command; returns its exit status, the report, and the lines on stderr."""

    def call(*files):
        status = main(["selfcheck", *map(str, files)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return call


@pytest.fixture
def edited(checkpoint, codi, tmp_path):
    """Write the tiny model's file with changed tensors."""

    def write(edit):
        tensors = load_file(checkpoint)
        edit(tensors)
        path = tmp_path / "edited.safetensors"
        save_file(tensors, path, {"codi_config": codi.config.to_json()})
        return path

    return write


def steps(report):
    return re.findall(r"^\| ([\w: ]+) \|.* \| \d+\.\d \| [\d.]+ \|$", report, re.MULTILINE)


def test_a_model_of_all_modalities(run, tmp_path):
    path = tiny.save(tmp_path / "whole.safetensors", tiny.build(tiny.FOUR))
    status, report, _ = run(path)
    assert status == 0 and "Result: **nothing is wrong**" in report and "## Problems" not in report
    assert f"| whole.safetensors | {path.stat().st_size} | {hashlib.sha256(path.read_bytes()).hexdigest()} |" in report
    assert str(tmp_path) not in report  # it can be posted
    assert steps(report) == [
        *(f"prompt: {name}" for name in ("text", "image", "video", "audio")),
        *(f"autoencoder: {name}" for name in ("text", "image", "audio")),
        *(f"prediction: {name}" for name in ("text", "image", "audio")),
        *(f"text to {name}" for name in ("text", "image", "video", "audio", "text and video and audio")),
    ]


def test_quantised_files(run, checkpoint, tmp_path):
    files = list(convert(checkpoint, tmp_path / "fp8", "fp8"))
    status, report, _ = run(*files)
    assert status == 0 and steps(report)[-3:] == ["text to image", "text to audio", "text to image and audio"]
    row = next(line for line in report.splitlines() if line.startswith("| diffuser.audio |"))
    assert re.search(r"\| 0 \| \d+ \| 0 \| float16 \d+\.\d%, float8_e4m3fn \d\d\.\d% \|$", row)


def test_versatile_diffusion(run, tmp_path):
    status, report, _ = run(tiny.save(tmp_path / "vd.safetensors", tiny.build(tiny.hosted_versatile())))
    assert status == 0
    assert steps(report)[-4:] == ["prediction: text", "prediction: image", "text to text", "text to image"]


def test_published_files_without_vocabularies(run, tmp_path, as_published, small_state):
    files = test_codi.split(small_state, tmp_path).values()
    status, report, _ = run(*files)
    assert status == 0, report
    assert "| texts | left out: vocab.txt and vocab.json are not beside the files |" in report
    assert steps(report)[-4:] == ["text to image", "text to video", "text to audio", "text to video and audio"]
    assert "| CoDi_audio_diffuser_m.pth |" in report and "| another one |" in report


@pytest.mark.parametrize(
    ("part", "ran"),
    [
        ("diffuser.audio", ["prediction: audio"]),
        ("autoencoders.image", ["autoencoder: image"]),
        ("prompt_encoders.text", ["prompt: text"]),
    ],
)
def test_some_parts_alone(run, codi, tmp_path, part, ran):
    status, report, _ = run(tiny.save(tmp_path / "part.safetensors", codi, [part]))
    assert status == 0 and steps(report) == ran and "Not in these files: " in report


def _nan(tensors):
    tensors["diffuser.audio.time_embed.0.bias"][0] = float("nan")


def _shape(tensors):
    tensors["diffuser.audio.time_embed.0.bias"] = torch.zeros(3)


def _missing(tensors):
    del tensors["diffuser.audio.time_embed.0.bias"]


def _unexpected(tensors):
    tensors["diffuser.audio.time_embed.7.bias"] = torch.zeros(3)


def _large(tensors):
    tensors["diffuser.audio.out.2.weight"].fill_(1e38)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_nan, "edited.safetensors holds 1 values of diffuser.audio that are not finite"),
        (_shape, r"edited.safetensors holds time_embed.0.bias of diffuser.audio as \[3\] where \[\d+\] is needed"),
        (_missing, "edited.safetensors lacks 1 of the .* tensors of diffuser.audio, such as time_embed.0.bias"),
        (
            _unexpected,
            "edited.safetensors holds 1 tensors that diffuser.audio does not have, such as time_embed.7.bias",
        ),
        (_large, "prediction: audio: the result is not finite"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_the_exit_status(run, edited, edit, message):
    status, report, lines = run(edited(edit))
    assert status == 1 and re.match(f"codi: {message}", lines[-1])
    assert re.search(rf"## Problems\n\n- {message}", report)
    assert bool(steps(report)) == (edit is _large)  # what cannot be loaded is not run


def test_a_truncated_file(run, checkpoint, tmp_path):
    path = tmp_path / "short.safetensors"
    path.write_bytes(checkpoint.read_bytes()[:-1000])
    status, report, lines = run(path)
    assert status == 1 and re.match(
        r"codi: short.safetensors cannot be read as safetensors .*: it is cut short", lines[-1]
    )
    assert hashlib.sha256(path.read_bytes()).hexdigest() in report


def test_what_is_no_model(run, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    status, report, lines = run(path)
    assert status == 1 and lines[-1].startswith("codi: notes.txt is a text, not a checkpoint")
    assert "| notes.txt | 8 |" in report and "| unknown | not known |" in report


def test_a_file_that_is_not_there(run, tmp_path):
    status, report, lines = run(tmp_path / "absent.safetensors")
    assert status == 1 and "There is no checkpoint file" in lines[-1]
    assert "| absent.safetensors | none | none | unknown | not known |" in report


def test_an_unusable_device_is_reported_before_anything_is_read(checkpoint, capsys):
    assert main(["selfcheck", str(checkpoint), "--device", "toaster"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and re.fullmatch("codi: The device toaster cannot be used .*\n", captured.err)
