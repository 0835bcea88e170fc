"""Evaluation and similarity of a model that has all parts, with random weights."""

import dataclasses
import json

import pytest
from tiny import FOUR, build, save

from codi_backend.cli.main import main
from codi_backend.evaluation.evaluate import evaluate
from codi_backend.evaluation.runs import RUNS
from codi_backend.evaluation.similarity import similarity


@pytest.fixture(scope="module")
def whole():
    """With audio and videos as long as those of the data set."""
    return build(
        dataclasses.replace(
            FOUR,
            audio_autoencoder=dataclasses.replace(FOUR.audio_autoencoder, seconds=2.56),
            image_autoencoder=dataclasses.replace(FOUR.image_autoencoder, frames=16),
        )
    )


def test_every_run(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("codi_backend.evaluation.report._plot", lambda *args: None)  # which would take longest
    lines = []
    evaluate(whole, tmp_path, samples=1, steps=1, log=lines.append)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["missing"] == {} and len(lines) == len(RUNS)
    for name, run in RUNS.items():
        record = json.loads((tmp_path / "runs" / f"{name}.json").read_text())["records"][0]
        assert record.keys() - {"scene", "left_out"} == set(run.outputs)


@pytest.fixture(scope="module")
def made(whole):
    prompt = whole.prompt("text", ["two red stars", "one blue star"])
    return whole.generate(prompt, ["text", "image", "video", "audio"], steps=1)


def test_similarity(whole, made):
    contents = {"prompt": ("text", ["two red stars"])} | {name: (name, content) for name, content in made.items()}
    result = similarity(whole, contents)
    assert result.labels == ("prompt", "text", "image", "video", "audio")
    for i, row in enumerate(result.cosines):
        assert row[i] == pytest.approx(1, abs=1e-5)
        assert row == pytest.approx([other[i] for other in result.cosines], abs=1e-6)
        assert all(-1.00001 <= value <= 1.00001 for value in row)
    image, video = (whole.prompt(name, made[name]).embedding[:, 0] for name in ("image", "video"))
    assert result.cosines[2][3] == pytest.approx((image * video).sum(1).mean().item(), abs=1e-5)
    assert "prompt" in str(result).splitlines()[0] and len(str(result).splitlines()) == 6


def test_mistakes(whole, codi, made):
    with pytest.raises(ValueError, match="no contents to compare"):
        similarity(whole, {})
    with pytest.raises(ValueError, match=r"batch sizes \[2, 3\]"):
        similarity(whole, {"a": ("text", ["x", "y", "z"]), "b": ("image", made["image"])})
    with pytest.raises(ValueError, match="no image prompt encoder"):
        similarity(codi, {"a": ("image", made["image"])})


def test_command(whole, tmp_path, capsys):
    model = save(tmp_path / "whole.safetensors", whole)
    arguments = [
        "similarity",
        "--model",
        str(model),
        "--text",
        "two red stars",
        "--text",
        "one star:0.5",
        "--steps",
        "1",
    ]
    assert main([*arguments, "--outputs", "image", "audio", "--count", "2", "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "similarity.json").read_text())
    labels = ["prompt 1 (text)", "prompt 2 (text)", "image", "audio"]
    assert result.keys() == {"joint", "independent"} and result["joint"]["labels"] == labels
    assert result["joint"]["cosines"][0][1] == pytest.approx(result["independent"]["cosines"][0][1])
    assert result["joint"]["cosines"][2][3] != result["independent"]["cosines"][2][3]
    assert (tmp_path / "out" / "similarity.png").stat().st_size > 5000
    assert "independent:" in capsys.readouterr().out
    assert main([*arguments, "--count", "0"]) == 1
    assert main(["similarity", "--model", str(model), "--image", str(tmp_path / "nowhere.png")]) == 1
