"""The whole recipe of the small CoDi at two steps a phase, on the tiny configuration; `test_versatile` has the rest."""

import dataclasses
import json
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file

from codi_backend.checkpoints.native import read_parts
from codi_backend.pipeline import CoDi
from codi_backend.training import pack as packing
from codi_backend.training import recipe, samples, statistics
from codi_backend.training.pack import pack
from codi_backend.training.recipe import RECIPE, STAGES, VERSATILE, phases
from codi_backend.training.run import run_stage
from codi_backend.training.run_folder import read_config

FOUR = dataclasses.replace(
    tiny.FOUR, audio_autoencoder=dataclasses.replace(tiny.FOUR.audio_autoencoder, vocoder=tiny.VOCODER)
)
OPTIONS = {"steps": 2, "batch_size": 2, "warmup": 0}
CONNECTORS = {"input_connectors", "output_connectors", "temporal_connectors"}


def ignore(line):
    pass


def parts(out):
    """Weights by part."""
    return {p.stem: read_parts(p).parts[p.stem] for p in (out / "parts").glob("*.safetensors")}


def records(out):
    """Names of the training records by part."""
    return {p.stem: [r["stage"] for r in read_parts(p).training] for p in (out / "parts").glob("*.safetensors")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder, and the parts and records as every stage left them, in order."""
    out = tmp_path_factory.mktemp("run")
    (out / "config.json").write_text(FOUR.to_json())
    after, recorded = {"": {}}, {"": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "SCENES", 6)
        patch.setattr(statistics, "_MEASURED", 64)
        patch.setattr(samples, "_SAMPLING", samples._SAMPLING | {"steps": 1})
        for stage in STAGES:
            run_stage(stage, out, OPTIONS, ignore)
            after[stage], recorded[stage] = parts(out), records(out)
    return out, after, recorded


def changed(after, stage, part):
    """Top-level names of the modules inside a part that a stage changed."""
    before = after[list(after)[list(after).index(stage) - 1]]
    return {name.split(".")[0] for name in tiny.changed(before[part], after[stage][part])}


def test_the_recipe_has_at_most_18_rows_and_no_rounds():
    assert len(RECIPE) <= 18 and STAGES == tuple(RECIPE)[:-1] and tuple(RECIPE)[-1] == VERSATILE
    assert not any(character.isdigit() for stage in RECIPE for name in phases(stage) for character in name)


def test_a_source_that_is_named_twice_has_two_turns():
    phase = RECIPE["distillation_audio"].changed({"sources": ["image", "image", "text"]}).of(FOUR)
    assert (phase.streams, *phase.other_pairs) == (("audio", "image"), ("audio", "image"), ("audio", "text"))


def test_every_part_of_the_model_is_trained(finished):
    out, after, _ = finished
    assert after[STAGES[-1]].keys() == CoDi(FOUR).parts().keys()


def test_a_stage_changes_the_parts_that_it_records_and_no_others(finished):
    _, after, recorded = finished
    before = ""
    for stage in STAGES:
        written = {
            part
            for part, state in after[stage].items()
            if part not in after[before] or tiny.changed(after[before][part], state)
        }
        new = {part: names[len(recorded[before].get(part, [])) :] for part, names in recorded[stage].items()}
        assert {part for part, names in new.items() if names} == written and written, stage
        # One record a phase, in order.
        seen = dict.fromkeys(name for names in new.values() for name in names)
        assert set(seen) == set(phases(stage)), stage
        for names in new.values():
            assert names == [name for name in phases(stage) if name in names], stage
        before = stage


def test_later_stages_change_what_latent_alignment_trains_and_no_more(finished):
    _, after, _ = finished
    for part in ("diffuser.image", "diffuser.audio", "diffuser.text"):
        assert changed(after, "environment", part) == {"environment_encoder"}
        temporal = set() if part == "diffuser.text" else {"temporal_connectors"}
        untimed = CONNECTORS - {"temporal_connectors"}
        assert changed(after, "alignment", part) == {"environment_encoder"} | untimed | temporal
    for stage, part in (("image", "image"), ("audio", "audio"), ("text", "text"), ("video", "image")):
        modules = changed(after, f"distillation_{stage}", f"diffuser.{part}")
        assert modules == CONNECTORS - (set() if stage in ("audio", "video") else {"temporal_connectors"})


def test_every_phase_has_its_own_folder(finished):
    out, _, _ = finished
    assert (out / "environment" / "video+audio" / "state.pt").exists() and not (out / "environment/state.pt").exists()
    for stage in STAGES:
        for name in phases(stage):
            assert (out / name / "state.pt").exists() and (out / name / "loss.png").stat().st_size > 1000
            assert [row["step"] for row in json.loads((out / name / "loss.json").read_text())] == [2]


def test_statistics_of_the_latents(finished):
    """Scale factors give them unit variance, and means are those of channels."""
    out, *_ = finished
    config = read_config(out)
    fields = ("image_autoencoder", "audio_autoencoder", "text_autoencoder")
    without = dict.fromkeys((*fields, "diffuser"))
    assert dataclasses.replace(config, **without) == dataclasses.replace(FOUR, **without)
    assert all(getattr(config, f).scale_factor != getattr(FOUR, f).scale_factor for f in fields)
    latents = {p.stem: load_file(p) for p in out.glob("latents_*.safetensors")}
    assert len(latents) == 4
    for name in ("latents_image", "latents_audio", "latents_video"):
        (z,) = latents[name].values()
        assert 0.4 < z.float().std() < 2.5
    means = config.diffuser.latent_means
    assert dataclasses.replace(config.diffuser, latent_means={}) == dataclasses.replace(FOUR.diffuser, latent_means={})
    assert means.keys() == {"text", "image", "video", "audio"}
    for name in means:
        (z,) = latents[f"latents_{name}"].values()
        measured = z.float().transpose(0, 1).flatten(1).mean(1)
        torch.testing.assert_close(measured, torch.tensor(means[name]), atol=0.1, rtol=0)


def test_packed_model_loads_and_generates(finished, tmp_path):
    out, after, recorded = finished
    files, last = pack(out, tmp_path), after[STAGES[-1]]
    assert {f.name for f in files} == {f"whole_{part}.safetensors" for part in last}
    codi = CoDi.load(files)
    assert codi.config == read_config(out)
    for part, state in tiny.states(codi).items():
        assert all(torch.equal(v, last[part][k].half().float()) for k, v in state.items())
    outputs = ["text", "image", "video", "audio"]
    made = codi.generate_latents(codi.prompt("text", "red"), outputs, steps=1)
    assert list(made) == outputs and all(z.isfinite().all() for z in made.values())
    packed = {f.stem.removeprefix("whole_"): [r["stage"] for r in read_parts(f).training] for f in files}
    assert packed == recorded[STAGES[-1]]


def test_a_large_part_is_packed_in_several_files(finished, tmp_path, monkeypatch):
    out, after, recorded = finished
    monkeypatch.setattr(packing, "_FILE_SIZE", 200_000)
    files = [f for f in pack(out, tmp_path) if "_diffuser.image" in f.name]
    assert len(files) > 1
    assert [f.name for f in files] == [
        f"whole_diffuser.image-{i + 1}-of-{len(files)}.safetensors" for i in range(len(files))
    ]
    assert all(len(load_file(f)) == 1 or f.stat().st_size < 300_000 for f in files)
    read = read_parts(files)
    expected = after[STAGES[-1]]["diffuser.image"]
    assert read.parts["diffuser.image"].keys() == expected.keys()
    assert all(torch.equal(v, expected[k].half()) for k, v in read.parts["diffuser.image"].items())
    assert [record["stage"] for record in read.training] == recorded[STAGES[-1]]["diffuser.image"]


def test_finished_phases_are_left_alone(finished):
    out, after, recorded = finished
    lines = []
    for stage in ("text_encoder", "alignment"):
        run_stage(stage, out, OPTIONS, lines.append)
    names = [*phases("text_encoder"), *phases("alignment")]
    assert [line.split(";")[0] for line in lines] == [f"{name} is finished" for name in names]
    assert not any(tiny.changed(state, after[STAGES[-1]][part]) for part, state in parts(out).items())
    assert records(out) == recorded[STAGES[-1]]


def test_a_stage_goes_on_with_the_phase_that_was_interrupted(finished, tmp_path):
    out, after, recorded = finished
    shutil.copytree(out, tmp_path / "run")
    path = tmp_path / "run" / "parts" / "prompt_encoders.image.safetensors"
    shutil.rmtree(tmp_path / "run" / "bridging_image" / "video")
    kept = read_parts(path)
    tiny_record = [record for record in kept.training if record["stage"] != "bridging_image/video"]
    packing.save_parts(path, kept.config, {path.stem: kept.parts[path.stem]}, tiny_record)
    lines = []
    run_stage("bridging_image", tmp_path / "run", OPTIONS, lines.append)
    assert lines[0].startswith("bridging_image/image is finished") and lines[1].startswith("bridging_image/video 2/2")
    assert records(tmp_path / "run") == recorded[STAGES[-1]]


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("text_encoder", "autoencoders.image"),
        ("diffuser_image", "prompt_encoders.text"),
        ("diffuser_video", "diffuser.image"),
        ("alignment", "diffuser.image"),
        ("distillation_audio", "diffuser.image"),
    ],
)
def test_stages_need_those_before_them(finished, tmp_path, stage, missing):
    out, *_ = finished
    (tmp_path / "parts").mkdir()
    for path in out.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".safetensors") and path.stem != missing:
            copy = tmp_path / path.relative_to(out)
            copy.parent.mkdir(exist_ok=True, parents=True)
            copy.write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match=f"{missing}.safetensors is missing: train the stage that makes"):
        run_stage(stage, tmp_path, OPTIONS, ignore)


def test_unknown_stage(tmp_path):
    with pytest.raises(ValueError, match="no stage 'diffuser'; choose from autoencoder_image, .*, versatile"):
        run_stage("diffuser", tmp_path / "run")
    assert not (tmp_path / "run").exists()
