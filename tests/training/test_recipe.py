"""All stages in order, on the tiny configuration."""

import dataclasses
import json
import re

import pytest
import tiny
import torch
import whole
from safetensors.torch import load_file

from codi_backend.checkpoints import read_parts
from codi_backend.model import CoDi
from codi_backend.training import recipe, samples
from codi_backend.training.loop import Options
from codi_backend.training.recipe import STAGES, pack, run_stage

OPTIONS = Options(steps=2, batch_size=2, warmup=0)
PARTS = {
    "autoencoder_image": {"autoencoders.image"},
    "autoencoder_audio": {"autoencoders.audio"},
    "autoencoder_text": {"autoencoders.text"},
    "prompts": {"prompt_encoders.text"},
    "bridging_image": {"prompt_encoders.image"},
    "bridging_audio": {"prompt_encoders.audio"},
    "bridging_video": {"prompt_encoders.image"},
    "diffuser_image": {"diffuser.image"},
    "refine_image": {"diffuser.image"},
    "refine2_image": {"diffuser.image"},
    "refine3_image": {"diffuser.image"},
    "diffuser_audio": {"diffuser.audio"},
    "refine_audio": {"diffuser.audio"},
    "diffuser_text": {"diffuser.text"},
    "refine_text": {"diffuser.text"},
    "refine4_image": {"diffuser.image"},
    "diffuser_video": {"diffuser.image"},
    "refine5_image": {"diffuser.image"},
    "refine_video": {"diffuser.image"},
    "environment_image": {"diffuser.image"},
    "environment_text": {"diffuser.text"},
    "environment_audio": {"diffuser.audio"},
    "environment_video": {"diffuser.image"},
    "environment_audio_video": {"diffuser.image", "diffuser.audio"},
    "alignment_image_text": {"diffuser.image", "diffuser.text"},
    "alignment_text_audio": {"diffuser.image", "diffuser.text", "diffuser.audio"},
    "alignment_audio_video": {"diffuser.image", "diffuser.text", "diffuser.audio"},
    "realign_text_audio": {"diffuser.image", "diffuser.text", "diffuser.audio"},
    "listening_image": {"diffuser.image"},
    "listening2_image": {"diffuser.image"},
    "listening_audio": {"diffuser.audio"},
    "listening_video": {"diffuser.image"},
    "environment2_audio_video": {"diffuser.image", "diffuser.audio"},
    "listening3_image": {"diffuser.image"},
    "listening2_audio": {"diffuser.audio"},
    "listening2_video": {"diffuser.image"},
    "listening3_audio": {"diffuser.audio"},
    "listening_text": {"diffuser.text"},
    "environment3_audio_video": {"diffuser.image", "diffuser.audio"},
    "listening4_audio": {"diffuser.audio"},
    "listening3_video": {"diffuser.image"},
    "listening5_audio": {"diffuser.audio"},
    "listening4_video": {"diffuser.image"},
    "listening2_text": {"diffuser.text"},
    "refine2_video": {"diffuser.image"},
    "environment2_image": {"diffuser.image"},
    "environment2_text": {"diffuser.text"},
    "environment4_audio_video": {"diffuser.image", "diffuser.audio"},
    "listening6_audio": {"diffuser.audio"},
    "listening3_text": {"diffuser.text"},
    "listening5_video": {"diffuser.image"},
    "refine6_image": {"diffuser.image"},
    "refine3_video": {"diffuser.image"},
    "listening6_video": {"diffuser.image"},
}


# Of every kind of stage the first round, of some a later one, and the last stage. With -m slow, all of them.
ROUNDS = ("refine2_image", "environment2_audio_video", "listening2_image", STAGES[-1])
SOME = tuple(name for name in STAGES if not any(map(str.isdigit, name)) or name in ROUNDS)


def quiet(line):
    pass


def parts(out):
    """Weights by part."""
    return {p.stem: read_parts(p).parts[p.stem] for p in (out / "parts").glob("*.safetensors")}


def last(after):
    return list(after.values())[-1]


@pytest.fixture(scope="module", params=[SOME, pytest.param(STAGES, marks=pytest.mark.slow)], ids=["some", "all"])
def finished(request, tmp_path_factory):
    """A run folder, and the parts as every stage that was run left them, in this order."""
    out = tmp_path_factory.mktemp("run")
    (out / "config.json").write_text(whole.CONFIG.to_json())
    after = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "SCENES", 6)
        patch.setattr(recipe, "_MEASURED_SCENES", 64)
        patch.setattr(samples, "_SAMPLING", samples._SAMPLING | {"steps": 1})
        for stage in request.param:
            run_stage(stage, out, OPTIONS, quiet)
            after[stage] = parts(out)
    return out, after


def test_stages_are_in_order():
    assert STAGES == tuple(PARTS)
    first_round = {name: re.sub(r"\d+_", "_", name) for name in STAGES}
    assert all(PARTS[name] == PARTS[first] for name, first in first_round.items())
    assert set(first_round.values()) <= set(SOME)


def test_every_stage_writes_its_parts_and_no_others(finished):
    _, after = finished
    before = {}
    for stage in after:
        assert after[stage].keys() == before.keys() | PARTS[stage]
        written = {name for name in before if tiny.changed(before[name], after[stage][name])}
        assert written == PARTS[stage] & before.keys()
        before = after[stage]


def test_alignment_changes_only_what_listens(finished):
    _, after = finished
    for part in PARTS["alignment_audio_video"]:
        names = tiny.changed(after["environment_video"][part], after["alignment_audio_video"][part])
        over_time = {"temporal_connectors"} if part != "diffuser.text" else set()
        listening = {"environment_encoder", "input_connectors", "output_connectors"} | over_time
        assert {name.split(".")[0] for name in names} == listening


def test_statistics_of_the_latents(finished):
    """Scale factors give them unit variance, and means are those of channels."""
    out, _ = finished
    config = recipe._config(out)
    fields = ("image_autoencoder", "audio_autoencoder", "text_autoencoder")
    without = dict.fromkeys((*fields, "diffuser"))
    assert dataclasses.replace(config, **without) == dataclasses.replace(whole.CONFIG, **without)
    assert all(getattr(config, f).scale_factor != getattr(whole.CONFIG, f).scale_factor for f in fields)
    latents = {p.stem: load_file(p) for p in out.glob("latents_*.safetensors")}
    assert len(latents) == 4
    for name in ("latents_image", "latents_audio", "latents_video"):
        (z,) = latents[name].values()
        assert 0.4 < z.float().std() < 2.5
    means = config.diffuser.latent_means
    assert dataclasses.replace(config.diffuser, latent_means={}) == dataclasses.replace(
        whole.CONFIG.diffuser, latent_means={}
    )
    assert means.keys() == {"text", "image", "video", "audio"}
    for name in means:
        (z,) = latents[f"latents_{name}"].values()
        measured = z.float().transpose(0, 1).flatten(1).mean(1)
        torch.testing.assert_close(measured, torch.tensor(means[name]), atol=0.1, rtol=0)


def test_packed_model_loads_and_generates(finished, tmp_path):
    out, after = finished
    files = pack(out, tmp_path)
    assert {f.name for f in files} == {f"whole_{part}.safetensors" for part in last(after)}
    codi = CoDi.load(files)
    assert codi.config == recipe._config(out)
    for part, state in tiny.states(codi).items():
        assert all(torch.equal(v, last(after)[part][k].half().float()) for k, v in state.items())
    outputs = ["text", "image", "video", "audio"]
    made = codi.generate_latents(codi.prompt("text", "red"), outputs, steps=1)
    assert list(made) == outputs and all(z.isfinite().all() for z in made.values())
    recorded = {f.stem.removeprefix("whole_"): [r["stage"] for r in read_parts(f).training] for f in files}
    expected = {part: [stage for stage in after if part in PARTS[stage]] for part in recorded}
    assert recorded == expected


def test_a_large_part_is_packed_in_several_files(finished, tmp_path, monkeypatch):
    out, after = finished
    monkeypatch.setattr(recipe, "_FILE_SIZE", 200_000)
    files = [f for f in pack(out, tmp_path) if "_diffuser.image" in f.name]
    assert len(files) > 1
    assert [f.name for f in files] == [
        f"whole_diffuser.image-{i + 1}-of-{len(files)}.safetensors" for i in range(len(files))
    ]
    assert all(len(load_file(f)) == 1 or f.stat().st_size < 300_000 for f in files)
    read = read_parts(files)
    expected = last(after)["diffuser.image"]
    assert read.parts["diffuser.image"].keys() == expected.keys()
    assert all(torch.equal(v, expected[k].half()) for k, v in read.parts["diffuser.image"].items())
    stages = [record["stage"] for record in read.training]
    assert stages == [stage for stage in after if "diffuser.image" in PARTS[stage]]


def test_finished_stages_run_again_unchanged(finished):
    out, after = finished
    for stage in ("prompts", "alignment_audio_video"):
        run_stage(stage, out, OPTIONS, quiet)
    assert not any(tiny.changed(state, last(after)[part]) for part, state in parts(out).items())
    record = read_parts(out / "parts" / "diffuser.image.safetensors").training
    assert [r["stage"] for r in record] == [stage for stage in after if "diffuser.image" in PARTS[stage]]


def test_every_stage_leaves_a_loss_curve(finished):
    out, after = finished
    for stage in after:
        assert (out / stage / "loss.png").stat().st_size > 1000
        assert [row["step"] for row in json.loads((out / stage / "loss.json").read_text())] == [2]


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("prompts", "autoencoders.image"),
        ("diffuser_image", "prompt_encoders.text"),
        ("bridging_video", "prompt_encoders.image"),
        ("diffuser_video", "diffuser.image"),
        ("alignment_text_audio", "diffuser.audio"),
    ],
)
def test_stages_need_those_before_them(finished, tmp_path, stage, missing):
    out, _ = finished
    (tmp_path / "parts").mkdir()
    for path in out.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".safetensors") and path.stem != missing:
            copy = tmp_path / path.relative_to(out)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match=f"{missing}.safetensors is missing: train the stage that makes"):
        run_stage(stage, tmp_path, OPTIONS, quiet)


def test_unknown_stage(tmp_path):
    with pytest.raises(ValueError, match="no stage 'alignment'; choose from autoencoder_image, "):
        run_stage("alignment", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_stage_is_left_alone(finished):
    out, _ = finished
    before, lines = parts(out), []
    run_stage("diffuser_image", out, OPTIONS, lines.append)
    assert len(lines) == 1 and "diffuser_image is finished" in lines[0]
    assert all(not tiny.changed(before[name], state) for name, state in parts(out).items())
