"""The shipped small Versatile Diffusion, and the README's commands for it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from codi_backend import CoDi, mix
from codi_backend.checkpoints.native import read_parts, resolve
from codi_backend.cli.main import main
from codi_backend.data import ShapesAndChimes
from codi_backend.evaluation import judge_image, judge_text
from codi_backend.media.write import to_pil
from codi_backend.presets import vd_mini

# The shipped weights were trained by an earlier recipe, in three rounds.
EARLIER_STAGES = ["versatile", "refine_versatile", "refine2_versatile"]


@pytest.fixture(scope="module")
def codi():
    return CoDi.load("vd-mini")


@pytest.fixture
def generate(tmp_path):
    """Runs the command; returns its images in 0..1, its texts, and its record."""

    def call(*arguments):
        out = tmp_path / "out"
        assert main(["generate", "--model", "vd-mini", "--seed", "0", "--out", str(out), *arguments]) == 0
        images = [np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255 for path in out.glob("image*.png")]
        texts = [path.read_text() for path in out.glob("text*.txt")]
        return images, texts, json.loads((out / "result.json").read_text())

    return call


@pytest.fixture
def heart(tmp_path):
    """A file with a green heart."""
    path = tmp_path / "heart.png"
    items = (ShapesAndChimes(2000, ("image",), split="all")[i] for i in range(2000))
    item = next(i for i in items if (i["scene"].colour, i["scene"].shape, i["scene"].count) == ("green", "heart", 1))
    to_pil(item["image"]).save(path)
    return path


def test_loads(codi):
    assert codi.config.name == vd_mini.CONFIG.name == "vd-mini"
    assert codi.outputs == ("text", "image") and set(codi.prompt_encoders) == {"text", "image"}
    assert all(p.isfinite().all() for p in codi.parameters())


def test_size():
    sizes = [path.stat().st_size for path in resolve("vd-mini")]
    assert sum(sizes) <= 25e6 and max(sizes) < 16e6


def test_every_part_is_half_precision_with_a_training_record():
    parts = set()
    for path in resolve("vd-mini"):
        read = read_parts(path)
        [part] = read.parts
        own = part.startswith(("diffuser.", "contexts."))
        stages = [record["stage"] for record in read.training]
        assert (stages == EARLIER_STAGES) == own and stages, path.name
        assert {t.dtype for state in read.parts.values() for t in state.values()} == {torch.float16}, path.name
        parts |= read.parts.keys()
    assert parts == CoDi(vd_mini.CONFIG).parts().keys()


def test_a_text(generate):
    images, texts, result = generate("--text", "one green heart", "--outputs", "image", "text", "--count", "4")
    for judged in ([judge_image(image) for image in images], [judge_text(text) for text in texts]):
        right = [(j.colour, j.shape, j.count) == ("green", "heart", 1) for j in judged]
        assert len(right) == 4 and sum(right) >= 3
    assert result["model"] == "vd-mini" and result["guidance"] == vd_mini.CONFIG.guidance


def test_an_image(generate, heart):
    images, [text], _ = generate("--image", str(heart), "--outputs", "image", "text")
    for judged in (judge_image(images[0]), judge_text(text)):
        assert (judged.colour, judged.shape) == ("green", "heart")


def test_both(generate, heart):
    """Images are made unless other outputs are named: this model has no audio."""
    images, texts, result = generate("--image", str(heart), "--text", "stars")
    judged = judge_image(images[0])
    assert (judged.colour, judged.shape) == ("green", "star") and not texts and result["outputs"] == ["image"]


def test_fidelity(generate, heart):
    def red(fidelity):
        [image], *_ = generate("--image", f"{heart}:0", "--text", "one red heart", "--fidelity", str(fidelity))
        return judge_image(image).colour

    assert (red(0), red(1)) == ("red", "green")


def test_focus(codi, heart, generate):
    [image], _, result = generate("--image", str(heart), "--focus", "1")
    assert result["focus"] == 1 and judge_image(image).colour == "green"
    pixels = torch.from_numpy(np.asarray(Image.open(heart), np.float32)).permute(2, 0, 1)[None] / 255
    expected = codi.generate(mix([(codi.context("image", pixels, focus=1.0), 1.0)]), ["image"], seed=0)["image"]
    assert np.abs(image - expected[0].numpy()).max() < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vd-mini", "--fidelity", "0.5"], "There is no image to start from: give one by --image"),
        (
            ["--model", "vd-mini", "--text", "a", "--fidelity", "2", "--image", "HEART"],
            "fidelity: 2 is out of range",
        ),
        (["--model", "vd-mini", "--image", "HEART", "--focus", "2"], "focus: 2 is out of range"),
        (["--text", "a", "--focus", "0", "--outputs", "image"], "prompts have no focus: leave --focus out"),
    ],
)
def test_mistakes(tmp_path, capsys, heart, arguments, message):
    arguments = [str(heart) if a == "HEART" else a for a in arguments]
    assert main(["generate", "--steps", "1", "--out", str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err
    assert any(part in error for part in message.split("|")) and error.count("\n") == 1
