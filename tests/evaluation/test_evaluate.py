"""`codi evaluate`, on an oracle that is always right, and on one with random weights."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import pytest

from codi_backend.cli.main import main
from codi_backend.evaluation import evaluate as module
from codi_backend.evaluation.agreement import adherence, coupling
from codi_backend.evaluation.evaluate import evaluate
from codi_backend.evaluation.fingerprints import fingerprint
from codi_backend.evaluation.runs import RUNS

_spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

SAMPLES = 8
FAST = [name for name in RUNS if name not in ("coupling_text_image", "coupling_text_audio", "coupling_image_audio")]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The output folder of an evaluation of the oracle."""
    out = tmp_path_factory.mktemp("oracle") / "evidence"
    evaluate(oracle.Oracle(), out, SAMPLES, runs=FAST, log=lambda line: None)
    return out


@pytest.fixture(scope="module")
def tables(out):
    """Figures by table, row and column."""
    read = json.loads((out / "evaluation.json").read_text())["tables"]
    return {key: {(f["row"], f["column"]): f for f in figures} for key, figures in read.items()}


def test_files(out):
    keys = ("fidelity", "bridging", "interpolation", "coupling", "adherence", "synchrony", "held")
    plots = {f"evaluation_{key}.png" for key in keys}
    assert {path.name for path in out.iterdir()} == {"evaluation.json", "evaluation.md", "runs"} | plots
    assert {path.name for path in (out / "runs").iterdir()} == {f"{name}.json" for name in FAST}


def test_fidelity(tables):
    figures = tables["fidelity"]
    prompts = ("text", "image", "video", "audio")
    assert {row for row, _ in figures} == {f"{a} → {b}" for a in prompts for b in prompts} | {
        f"text → {b}, held out" for b in prompts
    }
    assert {f["value"] for f in figures.values()} == {1.0} and all(f["met"] is not False for f in figures.values())
    assert figures["text → text", "count"]["n"] == figures["image → text", "count"]["n"] == SAMPLES
    assert 0 < figures["audio → video", "tempo"]["n"] == figures["text → text", "tempo"]["n"] < SAMPLES
    assert ("image → audio", "tempo") not in figures and ("text → image", "tempo") not in figures
    targets = {column: figures["text → audio", column]["target"] for column in ("colour", "shape", "count", "tempo")}
    assert targets == {"colour": 0.98, "shape": 0.9, "count": 0.93, "tempo": None}
    assert figures["text → audio, held out", "shape"]["target"] == 0.95
    assert {row for row, _ in tables["bridging"]} == {"image → audio", "audio → image"}


def test_interpolation(tables):
    right = {row: f["value"] for (row, column), f in tables["interpolation"].items() if column == "both"}
    grey = {row for row in right if "grey" in row}
    assert len(right) == 15 and len(grey) == 3
    assert {right[row] for row in right} == {1.0}  # to the oracle, grey is no colour


def test_coupling(tables):
    figures = tables["coupling"]
    for streams, columns in {
        "image + audio": 0,  # its joint run was left out
        "video + audio": 4,
        "text + image + audio": 4,
        "text + image + video + audio": 4,
    }.items():
        jointly = [f for (row, _), f in figures.items() if row == f"{streams}, jointly"]
        assert len(jointly) == columns and {f["value"] for f in jointly} <= {1.0}
    assert {figures["video + audio, jointly", a]["n"] for a in ("colour", "shape", "count")} == {SAMPLES}
    apart = figures["text + image + audio, independent", "colour"]
    assert 1 / 36 < apart["target"] < 1 / 30 and apart["value"] < 0.2 and apart["n"] == 5 * SAMPLES
    assert figures["text + image + audio, independent", "tempo"]["target"] == 0.5
    assert ("image + audio, independent", "tempo") not in figures
    assert 0 <= figures["image + audio, own frequencies", "shape"]["value"] < 0.4


def test_chance_follows_from_the_training_scenes():
    """Of single stars, five colours occur in training; of two crosses all six."""
    star = {"colour": "red", "shape": "star", "count": 1, "tempo": "slow"}
    crosses = star | {"shape": "cross", "count": 2}
    for scenes, left_out, chance in [
        ([star], ["colour"], 1 / 5),
        ([crosses], ["colour"], 1 / 6),
        ([star, crosses], ["colour"], (1 / 5 + 1 / 6) / 2),
        ([star], ["colour", "tempo"], 1 / 5),
    ]:
        streams = ("text", "image", "audio")
        records = [{"scene": s, "left_out": left_out, **dict.fromkeys(streams, s)} for s in scenes]
        figures = {(f.row, f.column): f for f in coupling({"coupling_none": records})}
        pair, three = (figures[f"text +{more} audio, independent", "colour"] for more in ("", " image +"))
        assert pair.target == pytest.approx(chance) and pair.goal == "chance" and not pair.met
        if len(scenes) == 1:
            assert three.target == pytest.approx(chance**2)


def test_adherence_in_joint_runs(tables):
    figures = tables["adherence"]
    streams = {"text", "image", "video", "audio"}
    assert {row for row, _ in figures if row.startswith("text + image + video")} == {
        f"text + image + video + audio → {stream}" for stream in streams
    }
    assert {row for row, _ in figures if row.startswith("independent")} == {f"independent → {s}" for s in streams}
    assert {f["value"] for f in figures.values()} == {1.0}
    assert figures["video + audio → video", "colour"]["n"] == SAMPLES > figures["video + audio → video", "tempo"]["n"]
    assert ("text + image + audio → image", "tempo") not in figures


def test_a_stream_that_does_not_adhere_to_the_prompt():
    scene = {"colour": "red", "shape": "star", "count": 2, "tempo": "slow"}
    other = {"colour": "blue", "shape": "heart", "count": 2, "tempo": "slow"}
    records = {"coupling_text_audio": [{"scene": scene, "left_out": ["shape"], "text": scene, "audio": other}]}
    figures = {(f.row, f.column): f.value for f in adherence(records)}
    assert figures["text + audio → text", "colour"] == 1 and figures["text + audio → audio", "colour"] == 0
    assert figures["text + audio → audio", "count"] == figures["text + audio → audio", "tempo"] == 1
    assert ("text + audio → audio", "shape") not in figures


def test_synchrony(tables):
    figures = tables["synchrony"]
    together, apart = figures["all four, jointly", "error"], figures["independent", "error"]
    assert together["met"] and together["value"] < 0.06  # half of what two frames are apart, and less on average
    assert apart["value"] > 0.08 and apart["target"] == figures["independent", "shuffled"]["value"]
    assert figures["video + audio, jointly", "shuffled"]["value"] == pytest.approx(0.4 / 3, abs=0.04)
    assert figures["independent", "both begin"]["value"] == 1


def test_held(tables):
    assert {f["value"] for f in tables["held"].values()} == {1.0}
    assert {column for _, column in tables["held"]} == {"count", "onsets", "colour", "shape", "tempo", "all"}


def test_markdown(out):
    text = (out / "evaluation.md").read_text()
    assert "samples 8, seed 0, steps 20, sampler dpmpp_2m, guidance 7.5, candidates 1." in text
    assert "| text → image | 100.0 % (68–100) ✓ ≥ 98.0 <sub>8</sub> |" in text
    assert "- coupling_image_audio: 0 of 16 prompts done" in text


@pytest.fixture
def unreported(monkeypatch):
    """Only runs: tables and plots take longer."""
    monkeypatch.setattr(module, "write_report", lambda *args: "")


def test_done_runs_are_not_done_again(out, unreported):
    model = oracle.Oracle()
    evaluate(model, out, SAMPLES, runs=FAST, log=lambda line: None)
    evaluate(model, out, SAMPLES - 1, runs=FAST, log=lambda line: None)
    assert model.generated == 0


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, unreported):
    class Interrupted(oracle.Oracle):
        def generate(self, *args, **kwargs):
            if self.generated >= 4:
                raise KeyboardInterrupt
            return super().generate(*args, **kwargs)

    def run(model, folder, **options):
        evaluate(model, tmp_path / folder, runs=["fidelity_text"], log=lambda line: None, **options)
        return (tmp_path / folder / "runs" / "fidelity_text.json").read_text()

    monkeypatch.setattr("codi_backend.evaluation.records.BATCH", 4)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), "interrupted", samples=6)
    model = oracle.Oracle()
    assert run(model, "interrupted", samples=6) == run(oracle.Oracle(), "whole", samples=6)
    assert model.generated == 2
    run(model, "interrupted", samples=6, seed=1)
    assert model.generated == 2 + 6


def test_more_samples_continue_a_run(tmp_path, monkeypatch, unreported):
    monkeypatch.setattr("codi_backend.evaluation.records.BATCH", 2)
    models = oracle.Oracle(), oracle.Oracle()
    options = {"runs": ["fidelity_audio"], "log": lambda line: None}
    evaluate(models[0], tmp_path / "a", 3, **options)
    evaluate(models[0], tmp_path / "a", 5, **options)
    evaluate(models[1], tmp_path / "b", 5, **options)
    assert [m.generated for m in models] == [3 + 3, 5]  # an unfinished batch is made again, with its own noise
    first, second = ((tmp_path / folder / "runs" / "fidelity_audio.json").read_text() for folder in "ab")
    assert first == second


def test_fewer_clips_than_samples(tmp_path, monkeypatch, unreported):
    monkeypatch.setattr("codi_backend.evaluation.records.BATCH", 2)
    of_videos = ["coupling_none_video", "coupling_video_audio", "video_from_text", "held_audio"]
    runs = [*of_videos, "coupling_none", "coupling_text_image", "fidelity_text", "held_video"]
    model = oracle.Oracle()
    evaluate(model, tmp_path, 4, 2, runs=runs, log=lambda line: None)
    records = {run: json.loads((tmp_path / "runs" / f"{run}.json").read_text())["records"] for run in runs}
    assert all(("video" in record) == (run in of_videos) for run in runs for record in records[run])
    # Of couplings, results take two prompts each; and of some there are more, above all of independent and quick ones.
    assert [len(records[run]) for run in runs] == [4 * 2, 2 * 2, 2, 2, 10 * 4, 2 * 4, 4, 4]
    made = model.generated
    evaluate(model, tmp_path, 4, 3, runs=runs, log=lambda line: None)  # more clips continue runs with videos only
    assert model.generated == made + 4 + 2 + 1 + 1


def test_random_weights(tmp_path, checkpoint, capsys):
    arguments = ["evaluate", "--model", str(checkpoint), "--samples", "2", "--steps", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == (tmp_path / "evaluation.md").read_text().strip()
    assert "coupling_none: 20 of 20 prompts" in captured.err
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["model"] == "tiny" and report["missing"]["held_video"] == "the model cannot generate video"
    assert report["missing"]["coupling_none_video"] == "the model cannot generate text, video"
    assert report["missing"]["fidelity_image"] == "the model has no prompt encoder for image"
    assert {f["row"] for f in report["tables"]["fidelity"]} >= {"text → image", "text → audio, held out"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "0"], ": 0 is out of range; choose a whole number from 1"),
        (["--clips", "0"], ": 0 is out of range; choose a whole number from 1"),
        (["--runs", "smell"], "no run smell; choose from fidelity_text"),
        (["--runs", "held_video"], "cannot generate video"),
    ],
)
def test_mistakes(tmp_path, checkpoint, capsys, arguments, message):
    assert main(["evaluate", "--model", str(checkpoint), "--out", str(tmp_path / "out"), *arguments]) == 1
    assert re.fullmatch(f"codi: .*{message}.*\n", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_fingerprint(codi):
    before = fingerprint(codi)
    assert re.fullmatch("[0-9a-f]{12}", before) and fingerprint(codi) == before
    weight = codi.prompt_encoders["text"].state_dict()["token_embedding.weight"]
    value = weight[0, 0].item()
    weight[0, 0] += 1
    try:
        assert fingerprint(codi) != before
    finally:
        weight[0, 0] = value


def changed(codi, name):
    """Which runs have another fingerprint when one number of a tensor is another."""
    before = {run.name: fingerprint(codi, run) for run in RUNS.values()}
    tensor = codi.state_dict()[name].flatten()
    value = tensor[0].item()
    tensor[0] += 1
    try:
        return {run.name for run in RUNS.values() if fingerprint(codi, run) != before[run.name]}
    finally:
        tensor[0] = value


JOINT = {name for name, run in RUNS.items() if run.alignment == "paper"}
WITH_AUDIO = {name for name, run in RUNS.items() if "audio" in run.streams}


def test_runs_without_alignment_do_not_depend_on_connectors(codi):
    depending = changed(codi, "diffuser.networks.audio.environment_encoder.0.0.bias")
    assert depending == WITH_AUDIO & JOINT and {"coupling_all", "held_audio"} < depending


def test_runs_depend_on_the_parts_that_they_use(codi):
    """A video is made by the network of images."""
    assert changed(codi, "diffuser.networks.audio.input_blocks.0.0.bias") == WITH_AUDIO
    depending = changed(codi, "diffuser.networks.image.input_blocks.0.0.bias")
    assert depending == set(RUNS) - {"coupling_text_audio"}
    from_text = {name for name, run in RUNS.items() if "text" in run.prompt.modalities}
    assert changed(codi, "prompt_encoders.text.token_embedding.weight") == from_text
    assert set(RUNS) - from_text > {"fidelity_audio", "video_from_image", "interpolation_image_audio"}


def test_runs_without_alignment_do_not_depend_on_modality_guidance(codi, monkeypatch):
    runs = RUNS["coupling_all"], RUNS["coupling_none_video"]
    before = [fingerprint(codi, run) for run in runs]
    monkeypatch.setattr(codi, "config", dataclasses.replace(codi.config, modality_guidance=1.7))
    after = [fingerprint(codi, run) for run in runs]
    assert after[1] == before[1]
    assert after[0] != before[0]


def test_candidates_are_for_joint_results(tmp_path, unreported):
    """Runs without alignment do not depend on the number of candidates, and are not performed again."""
    model, options = oracle.Oracle(), {"runs": ["fidelity_audio", "coupling_text_audio"], "log": lambda line: None}
    evaluate(model, tmp_path, 1, **options)
    evaluate(model, tmp_path, 1, candidates=3, **options)
    assert model.asked == [("none", 1), ("paper", 1), ("paper", 3)]
    with pytest.raises(ValueError, match="candidates: 0 is out of range"):
        evaluate(model, tmp_path, 1, candidates=0, **options)


def test_a_models_own_candidates(tmp_path, unreported, monkeypatch):
    """The model's number has the same effect as the argument, so results with that number are reused."""
    model, options = oracle.Oracle(), {"runs": ["coupling_text_audio"], "log": lambda line: None}
    evaluate(model, tmp_path, 1, candidates=3, **options)
    monkeypatch.setattr(oracle.Oracle, "config", dataclasses.replace(oracle.Oracle.config, num_candidates=3))
    evaluate(model, tmp_path, 1, **options)
    assert model.asked == [("paper", 3)]
    evaluate(model, tmp_path, 1, candidates=1, **options)
    assert model.asked == [("paper", 3), ("paper", 1)]
