"""The built-in model of emoji, and the documentation's commands for it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from codi_backend import CoDi
from codi_backend.checkpoints.native import read_parts, resolve
from codi_backend.cli.main import main
from codi_backend.presets import emoji
from codi_backend.training.recipe import STAGES, phases


@pytest.fixture(scope="module")
def codi():
    return CoDi.load("emoji")


def test_loads(codi):
    assert codi.config.name == "emoji" and codi.outputs == ("text", "image", "video", "audio")
    assert set(codi.prompt_encoders) == {"text", "image", "audio"}
    assert all(p.isfinite().all() for p in codi.parameters())


def test_it_has_the_configuration_that_it_was_trained_with(codi):
    """As the file has it, with the vocabulary of the captions, and the statistics of the latents."""
    model = json.loads((emoji.WEIGHTS.parent / "emoji_cpu.json").read_text())["model"]

    def agrees(stated, given):
        if isinstance(stated, dict):
            return all(agrees(value, given[key]) for key, value in stated.items())
        return given == stated

    assert agrees(model, json.loads(codi.config.to_json()))
    assert {"penguin", "strawberry", "flat", "3d"} <= set(codi.config.text_autoencoder.words)


def test_size():
    sizes = [path.stat().st_size for path in resolve("emoji")]
    assert sum(sizes) <= 60e6 and max(sizes) < 16e6


def test_every_part_is_half_precision_with_the_records_of_its_training():
    parts, trained = set(), set()
    for path in resolve("emoji"):
        read = read_parts(path)
        trained |= {record["stage"] for record in read.training}
        assert {t.dtype for state in read.parts.values() for t in state.values()} == {torch.float16}, path.name
        parts |= read.parts.keys()
    assert parts == CoDi(read_parts("emoji").config).parts().keys()
    assert trained == {name for stage in STAGES for name in phases(stage)} - {"vocoder"}


def test_attributions_are_beside_the_weights():
    text = (emoji.WEIGHTS / "ATTRIBUTIONS.md").read_text(encoding="utf-8")
    for words in ("Noto", "Twemoji", "CC-BY-4.0", "Apache-2.0", "espeak-ng"):
        assert words in text


def test_an_image_a_sound_and_a_text(tmp_path):
    words = "generate --model emoji --outputs image audio text --seed 0 --candidates 1 --text".split()
    assert main([*words, "a strawberry, flat style", "--out", str(tmp_path)]) == 0
    red, green, blue = np.asarray(Image.open(tmp_path / "image.png"), float).mean((0, 1))
    assert red > green + 20 and red > blue + 20
    assert "strawberry" in (tmp_path / "text.txt").read_text()
    assert (tmp_path / "audio.wav").stat().st_size > 10_000
