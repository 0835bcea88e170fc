"""An evaluation that goes on from the report of another."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from codi_backend.evaluation import versatile_runs
from codi_backend.evaluation.evaluate import evaluate
from codi_backend.evaluation.figures import Figure, mean, share, together


def load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Oracle = load("oracle").Oracle
RUNS = ["fidelity_text", "video_from_text", "video_from_text_held_out", "coupling_video_audio", "coupling_none_video"]


def go(model, out, samples, **options):
    """The report of an evaluation."""
    evaluate(model, out, samples, **{"runs": RUNS, "say": lambda line: None, **options})
    return json.loads((out / "evaluation.json").read_text())


def figures(report):
    return {(key, f["row"], f["column"]): f for key, table in report["tables"].items() for f in table}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An evaluation of 6, one of 4, and what extends this by 2."""
    folder = tmp_path_factory.mktemp("extension")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codi_backend.evaluation.runs._BATCH", 4)
        go(Oracle(), folder / "whole", 6)
        go(Oracle(), folder / "begun", 4)
        go(Oracle(), folder / "extended", 6, extend=folder / "begun" / "evaluation.json")
    return folder


@pytest.fixture(scope="module")
def reports(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/evaluation.json")}


def test_only_what_lacks_is_made(folder):
    for run, first in {"coupling_video_audio": 8, "fidelity_text": 4}.items():
        whole, rest = (
            json.loads((folder / name).read_text())
            for name in (f"whole/runs/{run}.json", f"extended/runs/{run}_from_{first}.json")
        )
        assert rest.pop("first") == first
        assert rest["records"] == whole["records"][first:]


def test_shares_and_means_are_those_of_all_results(reports):
    extended, whole = figures(reports["extended"]), figures(reports["whole"])
    assert extended.keys() == whole.keys()
    assert reports["extended"]["prompts"] == reports["whole"]["prompts"]
    assert reports["whole"]["prompts"]["coupling_video_audio"] == 12
    kinds = {"share": 0, "mean": 0}
    for key, figure in whole.items():
        other = extended[key]
        assert (other["unit"], other["goal"]) == (figure["unit"], figure["goal"]), key
        kind = "share" if figure["right"] is not None else "mean" if figure["deviation"] is not None else None
        if kind:
            kinds[kind] += 1
            assert (other["n"], other["right"]) == (figure["n"], figure["right"])
            for name in ("value", "low", "high"):
                assert other[name] == pytest.approx(figure[name], abs=3e-4), (key, name)
    assert kinds["share"] > 30 and kinds["mean"] == 2
    assert any(0.1 < f["value"] < 0.9 for f in whole.values() if f["right"])
    chance = "coupling", "text + image + video + sound, independent", "count"
    assert extended[chance]["target"] == pytest.approx(whole[chance]["target"], abs=3e-4)


def test_the_rest_of_the_report(reports):
    extended, whole = reports["extended"], reports["whole"]
    assert {k: v for k, v in extended.items() if k != "tables"} == {k: v for k, v in whole.items() if k != "tables"}
    assert set(RUNS).isdisjoint(extended["missing"])


def test_where_nothing_lacks_the_figures_stay(folder, reports, tmp_path):
    model = Oracle()
    again = go(model, tmp_path, 6, extend=folder / "extended" / "evaluation.json")
    fewer = go(model, tmp_path, 2, extend=folder / "extended" / "evaluation.json")
    assert model.generated == 0
    assert figures(again) == figures(fewer) == figures(reports["extended"])


def test_a_run_that_the_report_lacks_is_made_from_the_start(folder, reports, tmp_path):
    report = go(Oracle(), tmp_path, 4, runs=["held_video"], extend=folder / "begun" / "evaluation.json")
    assert report["prompts"] == {**reports["begun"]["prompts"], "held_video": 4}
    held = figures(report)["held", "video held → sound", "count"]
    assert (held["n"], held["right"]) == (4, 4)
    assert figures(report).items() >= figures(reports["begun"]).items()


def test_a_report_without_tables(tmp_path):
    path = tmp_path / "evaluation.json"
    heading = {k: v for k, v in go(Oracle(), tmp_path, 2, runs=["held_video"]).items() if k != "missing"}
    path.write_text(json.dumps({**heading, "tables": {}, "prompts": {}}))
    report = go(Oracle(), tmp_path / "out", 2, runs=["held_video"], extend=path)
    assert figures(report)["held", "video held → sound", "count"]["n"] == 2


@pytest.mark.parametrize(
    ("contents", "options", "message"),
    [
        (None, {}, "is no report that can be extended: give an evaluation.json of codi evaluate"),
        ("no JSON", {}, "is no report"),
        ("[1, 2]", {}, "is no report"),
        ('{"tables": {}}', {}, "is no report"),
        ("begun", {"seed": 1}, "its seed is 0, but 1 here"),
        ("begun", {"guidance": 3.5}, "its guidance is 7.5, but 3.5 here; choose the same"),
        ("begun", {"candidates": 2}, "its candidates is 1, but 2 here"),
    ],
)
def test_what_cannot_be_extended(folder, tmp_path, contents, options, message):
    path, model = tmp_path / "evaluation.json", Oracle()
    if contents:
        path.write_text((folder / "begun" / path.name).read_text() if contents == "begun" else contents)
    with pytest.raises(ValueError, match=re.escape(message)):
        go(model, tmp_path / "out", 6, extend=path, **options)
    assert model.generated == 0 and not (tmp_path / "out").exists()


def test_figures_of_versatile_diffusion(tmp_path):
    """Its overlaps are means of shares."""
    model, runs = load("versatile_oracle").VersatileOracle, [versatile_runs.FIDELITY[0.4]]
    go(model(), tmp_path / "a", 2, runs=runs)
    extended = go(model(), tmp_path / "b", 4, runs=runs, extend=tmp_path / "a" / "evaluation.json")
    overlap = next(f for key, f in figures(extended).items() if key[2] == "overlap")
    assert overlap["n"] == 4 and overlap["right"] is None and overlap["low"] <= overlap["value"] <= overlap["high"]


def test_means_together():
    values = [0.1, 0.4, 0.15, 0.9, 0.35, 0.2, 0.25]
    (a,), (b,), (both,) = (
        mean("row", "error", v, target=0.2, goal="at most") for v in (values[:3], values[3:], values)
    )
    for figure in (together(a, b), together(b, a)):
        for name in ("value", "low", "high", "deviation", "n", "target"):
            assert getattr(figure, name) == pytest.approx(getattr(both, name))
        assert figure.goal == "at most" and figure.met is both.met is False


def test_targets_together():
    (a,), (b,) = share("row", "colour", [True] * 30, target=0.5, goal="chance"), share("row", "colour", [False] * 10)
    assert (together(a, b).target, together(b, a).target, together(b, b).target) == (0.5, 0.5, None)
    assert {together(a, b).goal, together(b, a).goal} == {"chance"}
    (c,) = share("row", "colour", [False] * 10, target=0.9, goal="chance")
    figure = together(a, c)
    assert (figure.value, figure.right, figure.n, figure.goal) == (0.75, 30, 40, "chance")
    assert figure.target == pytest.approx(0.6) and figure.met is (figure.low <= 0.6)


def test_computed_figures_together():
    a, b = (Figure("row", "strangers", v, v, v, n, "seconds") for v, n in ((0.2, 30), (0.4, 10)))
    figure = together(a, b)
    assert figure.value == figure.low == figure.high == pytest.approx(0.25) and figure.n == 40
