"""`codi evaluate` of Versatile Diffusion: on an oracle that is always right, and on one that ignores texts."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from tiny import build, save

from codi_backend.cli.main import main
from codi_backend.data import sample_scene
from codi_backend.data.images import render_image
from codi_backend.evaluation.contexts import VISIBLE, unlike
from codi_backend.evaluation.evaluate import evaluate
from codi_backend.evaluation.overlap import overlap
from codi_backend.evaluation.versatile_runs import RUNS
from codi_backend.presets import vd_mini

_spec = importlib.util.spec_from_file_location("versatile_oracle", Path(__file__).with_name("versatile_oracle.py"))
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

SAMPLES = 12


def measure(model, out, runs=None):
    """Values by table, row and column."""
    evaluate(model, out, SAMPLES, runs=runs, log=lambda line: None)
    read = json.loads((out / "evaluation.json").read_text())["tables"]
    return {key: {(f["row"], f["column"]): f for f in figures} for key, figures in read.items()}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("oracle")


@pytest.fixture(scope="module")
def tables(out):
    return measure(oracle.VersatileOracle(), out)


def test_files(out, tables):
    plots = {f"evaluation_{key}.png" for key in ("flows", "dual", "focus", "start", "edit")}
    assert {path.name for path in out.iterdir()} == {"evaluation.json", "evaluation.md", "runs"} | plots
    assert {path.stem for path in (out / "runs").iterdir()} == RUNS.keys()


def test_flows(tables):
    figures = tables["flows"]
    flows = [f"{a} → {b}{more}" for a in ("text", "image") for b in ("image", "text") for more in ("", ", held out")]
    assert list(dict.fromkeys(row for row, _ in figures)) == flows
    assert {f["value"] for f in figures.values()} == {1.0} and {f["n"] for f in figures.values()} == {SAMPLES}
    targets = {key: f["target"] for key, f in figures.items() if f["target"] is not None}
    assert targets == {
        **{(f"{a} → image", "colour"): 0.95 for a in ("text", "image")},
        **{(f"{a} → image", "shape"): 0.9 for a in ("text", "image")},
        **{(f"{a} → text", "all"): 0.9 for a in ("text", "image")},
    }


def test_dual_guidance(tables):
    figures = tables["dual"]
    assert {row for row, column in figures if column == "both"} == {
        "shape: text, colour: image",
        "shape: text, colour: image, focus 1",
        "colour: text, shape: image",
        "colour: text, shape: image, focus 0",
    }
    assert {f["value"] for f in figures.values()} == {1.0}


def test_focus(tables):
    """Focus 0 (semantic) keeps shape and count, focus 1 (style) the colour; the others are random."""
    values = {key: f["value"] for key, f in tables["focus"].items()}
    for level in ("0", "0.25"):
        assert (values[level, "shape"], values[level, "count"]) == (1, 1) and values[level, "colour"] < 0.6
    for level in ("0.75", "1"):
        assert values[level, "colour"] == 1 and values[level, "shape"] < 0.6
    assert {values["0.5", column] for column in VISIBLE} == {1}
    assert tables["focus"]["0", "shape"]["target"] == tables["focus"]["1", "colour"]["target"] == 0.9
    assert tables["focus"]["0", "colour"]["target"] is None


def test_start(tables):
    values = {key: f["value"] for key, f in tables["start"].items()}
    assert values["0.4", "overlap"] < 0.5 and values["0.6", "overlap"] == values["1", "overlap"] == 1
    for row, start, text in (("0", 0, 1), ("0.4", 0, 1), ("0.6", 1, 0), ("1", 1, 0)):
        for attribute in ("colour", "shape"):
            assert (values[row, f"start's {attribute}"], values[row, f"text's {attribute}"]) == (start, text)


def test_editing(tables):
    figures = tables["edit"]
    assert {row for row, _ in figures} == {
        f"by the {how}, {name}" for how in ("mixture", "description") for name in (*VISIBLE, "any")
    }
    assert {f["value"] for f in figures.values()} == {1.0}
    assert figures["by the mixture, any", "success"]["n"] == 3 * figures["by the mixture, count", "success"]["n"]


def test_a_model_that_ignores_texts(tmp_path):
    tables = measure(oracle.TextUnconditional(), tmp_path, ["dual_shape", "edit"])
    assert tables["dual"]["shape: text, colour: image", "both"]["value"] == 0
    assert tables["dual"]["shape: text, colour: image", "colour"]["value"] == 1
    edit = tables["edit"]
    assert edit["by the mixture, any", "success"]["value"] == edit["by the mixture, any", "changed"]["value"] == 0
    assert edit["by the mixture, any", "others kept"]["value"] == 1


def test_random_weights(tmp_path, capsys):
    model = save(tmp_path / "random.safetensors", build(vd_mini.CONFIG))
    arguments = ["--samples", "2", "--steps", "1", "--runs", "flows_image", "start_0.4", "edit_by_text"]
    assert main(["evaluate", "--model", str(model), "--out", str(tmp_path / "out"), *arguments]) == 0
    assert "| image → text |" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["missing"]["dual_shape"] == "0 of 2 prompts done"
    [overlaps] = [f for f in report["tables"]["start"] if f["column"] == "overlap"]
    assert 0 <= overlaps["value"] < 1
    assert main(["evaluate", "--model", str(model), "--runs", "coupling_all"]) == 1
    assert "no run coupling_all; choose from flows_text" in capsys.readouterr().err


def test_other_values():
    for i in range(30):
        scene = sample_scene(0, i)
        for names in (("colour",), ("count",), ("colour", "shape")):
            other = unlike(scene, names, i)
            assert all((getattr(other, a) != getattr(scene, a)) == (a in names) for a in VISIBLE)
            assert other == unlike(scene, names, i) and len(other.places) == other.count


def test_overlap():
    def image(scene):
        return torch.from_numpy(render_image(scene)).permute(2, 0, 1)

    one = next(scene for scene in map(lambda i: sample_scene(0, i), range(99)) if scene.count == 1)
    two = unlike(one, ("colour",), 0)
    blank = torch.full((3, 64, 64), 245 / 255)
    assert overlap(image(one), image(two)) > 0.9 and overlap(image(one), blank) == 0
    assert overlap(blank, blank) == 1
    half = image(one)
    left, top, size = one.places[0]
    half[:, :, left + size // 2 :] = 245 / 255
    assert 0.2 < overlap(image(one), half) < 0.8
