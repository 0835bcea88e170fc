"""The shipped weights, and the README's first command."""

import json
import subprocess
import sys
import wave

import numpy as np
import pytest
import torch
from PIL import Image

from codi_backend import CoDi, mini
from codi_backend.checkpoints import read_parts, resolve

COMMAND = ["generate", "--text", "three red stars, slowly", "--outputs", "image", "audio", "--seed", "0"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What the command writes."""
    folder = tmp_path_factory.mktemp("mini") / "out"
    subprocess.run([sys.executable, "-m", "codi_backend", *COMMAND, "--out", folder], check=True, timeout=300)
    return folder


def test_loads():
    codi = CoDi.load("mini")
    assert codi.config.name == mini.CONFIG.name == "mini"
    assert codi.outputs == ("image", "audio")
    assert all(p.isfinite().all() for p in codi.parameters())


def test_size():
    assert sum(path.stat().st_size for path in resolve("mini")) <= 30e6


def test_every_part_is_half_precision_with_a_training_record():
    parts = set()
    for path in resolve("mini"):
        read = read_parts(path)
        assert read.training, path.name
        for record in read.training:
            assert record.keys() >= {"stage", "options", "minutes", "machine", "torch", "final"}, path.name
        assert {t.dtype for state in read.parts.values() for t in state.values()} == {torch.float16}, path.name
        parts |= read.parts.keys()
    assert parts == CoDi(mini.CONFIG).parts().keys()


def test_picture(out):
    with Image.open(out / "image.png") as picture:
        assert (picture.size, picture.mode) == ((64, 64), "RGB")


def test_sound(out):
    with wave.open(str(out / "audio.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        assert file.getnframes() / file.getframerate() == 2.56


def test_picture_is_red(out):
    from codi_backend.evaluation.judges import judge_image

    pixels = np.asarray(Image.open(out / "image.png"), np.float32) / 255
    assert judge_image(pixels.transpose(2, 0, 1)).colour == "red"


def test_sound_is_red(out):
    from codi_backend.evaluation.judges import judge_sound

    with wave.open(str(out / "audio.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32767
    assert judge_sound(samples[None], 16000).colour == "red"


def test_memory_and_time(out):
    result = json.loads((out / "result.json").read_text())
    assert result["peak_memory_mb"] < 4000
    assert sum(result["seconds"].values()) < 60
    assert (result["model"], result["seed"], result["steps"]) == ("mini", 0, 20)
