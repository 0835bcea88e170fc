"""The `codi` command, in this process."""

import json
import os
import re
import subprocess
import sys
import wave

import numpy as np
import pytest
import torch
from PIL import Image

from codi_backend.cli.main import main
from codi_backend.pipeline import CoDi
from codi_backend.sampling.noise import stream_noise
from codi_backend.training import recipe

SETTINGS = {
    "model": "tiny",
    "prompts": [{"modality": "text", "content": "two <blue> stars", "weight": 1.0}],
    "interpolation": "linear",
    "held": [],
    "outputs": ["image", "audio"],
    "seed": 3,
    "steps": 2,
    "sampler": "dpmpp_2m",
    "guidance": 7.5,
    "alignment": "paper",
    "strength": 1.0,
    "alignment_scale": 1.0,
}


@pytest.fixture
def generate(checkpoint, tmp_path):
    """Run `codi generate` on the tiny model into ``tmp_path / "out"``."""

    def call(*arguments, model=checkpoint):
        return main(
            ["generate", "--text", "two <blue> stars", "--seed", "3", "--steps", "2", "--out", str(tmp_path / "out")]
            + ["--model", str(model), *arguments]
        )

    return call


@pytest.fixture(scope="module")
def two(checkpoint, tmp_path_factory):
    """Folder with two results."""
    out = tmp_path_factory.mktemp("two") / "deep" / "out"
    command = f"generate --steps 2 --seed 3 --count 2 --model {checkpoint} --out {out} --text".split()
    assert main([*command, "two <blue> stars"]) == 0
    return out


def references(page):
    return re.findall(r'(?:src|href)="([^"]+)"', page.read_text())


def test_files(two):
    names = {path.name for path in two.iterdir()}
    assert names == {"image_1.png", "image_2.png", "audio_1.wav", "audio_2.wav", "result.json", "index.html"}
    assert not np.array_equal(*(np.asarray(Image.open(two / f"image_{i}.png")) for i in (1, 2)))
    for i in (1, 2):
        assert Image.open(two / f"image_{i}.png").size == (64, 64)
        with wave.open(str(two / f"audio_{i}.wav")) as file:
            assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 16000, 10240)


def test_result(two):
    result = json.loads((two / "result.json").read_text())
    assert result.items() >= SETTINGS.items()
    assert result["files"] == [{"image": f"image_{i}.png", "audio": f"audio_{i}.wav"} for i in (1, 2)]
    assert result["seconds"].keys() == {"read files", "load", "encode prompt", "denoise", "decode", "write files"}
    assert all(s >= 0 for s in result["seconds"].values())
    assert 50 < result["peak_memory_mb"] < 20000


def test_page_needs_no_network(two):
    text = (two / "index.html").read_text()
    assert not re.search("https?:|url\\(|@import", text)
    files = {r for r in references(two / "index.html") if not r.startswith("data:image/png;base64,")}
    assert files == {"image_1.png", "image_2.png", "audio_1.wav", "audio_2.wav"}
    assert len(references(two / "index.html")) == 6
    assert "two &lt;blue&gt; stars" in text and "<blue>" not in text


def test_json_is_all_there_is_on_stdout(generate, capsys):
    assert generate("--json", "--outputs", "image") == 0
    out = capsys.readouterr().out
    result = json.loads(out)
    assert result.items() >= {**SETTINGS, "outputs": ["image"]}.items()
    assert result["files"] == [{"image": "image.png"}]


def test_results_are_those_of_the_library(generate, checkpoint, tmp_path):
    codi = CoDi.load(checkpoint)
    assert generate("--outputs", "image", "--guidance", "2", "--sampler", "ddim") == 0
    prompt = codi.prompt("text", "two <blue> stars")
    expected = codi.generate(prompt, ["image"], steps=2, guidance=2, seed=3, sampler="ddim")["image"][0]
    image = np.asarray(Image.open(tmp_path / "out" / "image.png"))
    assert np.array_equal(image, (expected * 255).round().byte().permute(1, 2, 0).numpy())


def test_audio_alone(generate, tmp_path, capsys):
    assert generate("--outputs", "audio") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"audio.wav", "result.json", "index.html"}
    assert "index.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "value", "content", "weight"),
    [
        ("image", "cat.png", "cat.png", 1.0),
        ("image", "cat.png:0.3", "cat.png", 0.3),
        ("image", "cat.png:2", "cat.png", 2.0),
        ("image", "there:0.3", "there:0.3", 1.0),
        ("image", "there:0.3:.5", "there:0.3", 0.5),
        ("image", "C:7", "C:7", 1.0),
        ("image", r"C:\cats\1.png", r"C:\cats\1.png", 1.0),
        ("image", r"C:\cats\1.png:0.5", r"C:\cats\1.png", 0.5),
        ("image", "cat.png:much", "cat.png:much", 1.0),
        ("text", "a cat", "a cat", 1.0),
        ("text", "a cat: black:0.5", "a cat: black", 0.5),
        ("text", "a cat:0.5:1", "a cat:0.5:1", 1.0),
        ("text", ":0.5", "", 0.5),
        ("text", "at 10:30", "at 10:30", 1.0),
        ("text", "a cat: 3", "a cat: 3", 1.0),
    ],
)
def test_weights(tmp_path, monkeypatch, kind, value, content, weight):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there:0.3").touch()
    asked = []
    monkeypatch.setattr("codi_backend.cli.generate.generate_to_folder", asked.append)
    assert main(["generate", "--text", "first", f"--{kind}", value]) == 0
    assert asked[0].prompts == [("text", "first", 1.0), (kind, content, weight)]


def test_progress_goes_to_stderr(generate, capsys, monkeypatch):
    monkeypatch.setattr("codi_backend.cli.generate._BAR_DELAY", 0)
    assert generate("--outputs", "image") == 0
    assert "denoising: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outputs", "smell"], "no modality 'smell'"),
        (["--outputs", "text"], "cannot generate text"),
        (["--outputs", "image", "image"], "named twice"),
        (["--steps", "0"], "steps: 0 is out of range"),
        (["--steps", "-1"], "steps: -1 is out of range"),
        (["--count", "0"], "--count: 0 is out of range"),
        (["--seed", "-1"], "seed: -1 is out of range"),
        (["--sampler", "heun"], "no sampler 'heun'"),
        (["--alignment", "loud"], "no alignment 'loud'"),
        (["--strength", "-1"], "strength: -1 is out of range; choose a number from 0 to 100"),
        (["--guidance", "nan"], "guidance: nan"),
        (["--image", "nowhere.png:0.5"], "There is no file nowhere.png"),
        (["--text", "a:-1"], "weights: -1 is out of range; choose a number from 0 to"),
        (["--interpolation", "cubic"], "no interpolation 'cubic'"),
        (["--hold", "smell=rose"], "no modality 'smell'"),
        (["--hold", "image=a.png", "--hold", "image=b.png"], "held twice"),
        (["--image-size", "50"], "image_size: 50 pixels do not fit the model"),
        (["--device", "toaster"], "device toaster cannot be used"),
        (["--model", "nowhere.safetensors"], "no checkpoint file nowhere.safetensors"),
    ],
)
def test_mistakes_are_one_line(generate, tmp_path, capsys, arguments, message):
    assert generate(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"codi: .+\n", captured.err) and message in captured.err
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there(generate, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert generate("--device", "cuda") == 1
    assert re.fullmatch(r"codi: The device cuda cannot be used.+\n", capsys.readouterr().err)


def test_out_is_a_file(generate, tmp_path, capsys):
    (tmp_path / "out").write_text("precious")
    assert generate("--outputs", "image") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("codi: ")
    assert (tmp_path / "out").read_text() == "precious"


def test_interruption(generate, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("codi_backend.sampling.latents.sample", interrupt)
    assert generate() == 130
    assert capsys.readouterr().err == "codi: interrupted\n"


def test_same_noise_whatever_the_count(two, generate, tmp_path):
    assert generate("--outputs", "image", "audio") == 0
    alone, first = (np.asarray(Image.open(f), int) for f in (tmp_path / "out" / "image.png", two / "image_1.png"))
    assert np.abs(alone - first).max() <= 1
    assert not torch.equal(*stream_noise((2, 4), 3, "image"))


@pytest.mark.parametrize("command", [[], ["nonsense"], ["dataset"], ["generate", "--hold", "cat.png"]])
def test_incomplete_command(command, capsys):
    with pytest.raises(SystemExit) as error:
        main(command)
    assert error.value.code == 2
    assert "usage: codi" in capsys.readouterr().err


def test_dataset_preview(tmp_path, capsys):
    out = tmp_path / "preview"
    assert main(["dataset", "preview", "--out", str(out), "--count", "9", "--split", "held_out"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "index.html")
    assert Image.open(out / "contact_sheet.png").size == (8 * 64, 2 * 64)
    shown = references(out / "index.html") + re.findall(r'<source src="([^"]+)"', (out / "index.html").read_text())
    assert {out / name for name in shown} == {*out.iterdir()} - {out / "index.html", out / "contact_sheet.png"}
    assert len(shown) == 9 * 4
    with Image.open(out / "0.webp") as animation:
        assert animation.n_frames > 1
    with wave.open(str(out / "8.wav")) as file:
        assert (file.getframerate(), file.getnframes()) == (16000, 40960)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--count", "0"], "preview of 0 scenes"), (["--split", "test"], "no split 'test'")],
)
def test_mistakes_in_a_preview(tmp_path, capsys, arguments, message):
    assert main(["dataset", "preview", "--out", str(tmp_path / "p"), *arguments]) == 1
    assert re.fullmatch(f"codi: .*{message}.*\n", capsys.readouterr().err)
    assert not (tmp_path / "p").exists()


def test_unknown_stage(tmp_path, capsys):
    assert main(["train", "diffuser_smell", "--out", str(tmp_path / "run")]) == 1
    assert re.fullmatch(f"codi: .*no stage 'diffuser_smell'.*{recipe.STAGES[0]}.*\n", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_pack_of_an_unfinished_run(tmp_path, capsys):
    assert main(["pack", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "packed")]) == 1
    assert re.fullmatch("codi: .*is missing: train the stage.*\n", capsys.readouterr().err)


def test_pytorch_is_imported_after_its_threads_are_made_to_wait_passively(monkeypatch):
    script = """
import sys
from codi_backend.cli import main
main.check_folder = lambda folder: print("torch" in sys.modules)
main.main(["generate", "--model", "nothing"])
"""
    printed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True).stdout
    assert printed == "False\n"
    for given, expected in (None, "PASSIVE"), ("ACTIVE", "ACTIVE"):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if given:
            monkeypatch.setenv("OMP_WAIT_POLICY", given)
        with pytest.raises(SystemExit):
            main(["--help"])
        assert os.environ["OMP_WAIT_POLICY"] == expected
