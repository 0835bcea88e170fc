"""Stages on a user's own data, from checkpoint files."""

import json
from dataclasses import replace
from pathlib import Path

import own_data
import pytest
import tiny
import torch
from detweights import fill_
from safetensors.torch import save_file

from codi_backend.checkpoints import codi as published
from codi_backend.checkpoints.convert import convert
from codi_backend.checkpoints.native import read_parts
from codi_backend.cli.main import main
from codi_backend.config import CoDiConfig
from codi_backend.data.pairs import Pairs
from codi_backend.media.write import save_video
from codi_backend.pipeline import CoDi
from codi_backend.training import finetune as module
from codi_backend.training.finetune import STAGES, finetune
from codi_backend.training.loop import Options
from codi_backend.training.pair_latents import PairLatents

GOLDEN = Path(__file__).parents[1] / "golden"
OF_ALIGNMENT = {"environment_encoder", "input_connectors", "output_connectors"}
OPTIONS = Options(steps=2, batch_size=2, warmup=0, learning_rate=0.01)


def ignore(line):
    pass


@pytest.fixture(scope="module")
def codi():
    return tiny.build()


@pytest.fixture(scope="module")
def checkpoint(codi, tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", codi)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """A model with all four modalities, and its file."""
    codi = tiny.build(tiny.FOUR)
    return codi, tiny.save(tmp_path_factory.mktemp("four") / "whole.safetensors", codi)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = own_data.make(tmp_path_factory.mktemp("own") / "data", 3)
    for i in range(3):
        save_video(folder / f"item{i}.mp4", torch.full((3, 4, 32, 32), i / 3), 6.25)
    return folder


@pytest.fixture(scope="module")
def aligned(checkpoint, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("aligned")
    command = [
        "train",
        "alignment",
        "--data",
        folder,
        "--init",
        checkpoint,
        "--out",
        out,
        "--streams",
        "image",
        "audio",
    ]
    command += ["--steps", 2, "--batch-size", 2, "--learning-rate", 0.01]
    assert main([str(word) for word in command]) == 0
    return out


def test_alignment_trains_connectors_and_environment_encoders_only(codi, aligned):
    before = tiny.states(codi)
    for part in ("diffuser.image", "diffuser.audio"):
        after = read_parts(aligned / f"tiny_{part}.safetensors")
        changed = tiny.changed(before[part], after.parts[part])
        assert {n.split(".")[0] for n in changed} == OF_ALIGNMENT
        (record,) = after.training
        assert (record["stage"], record["entries"]) == ("alignment_image_audio", 3)


def test_what_was_trained_takes_the_place_of_what_was(codi, aligned, tmp_path):
    others = set(codi.parts()) - {"diffuser.image", "diffuser.audio"}
    rest = tiny.save(tmp_path / "rest.safetensors", codi, others)
    again = CoDi.load([rest, *aligned.glob("*.diffuser.*"), *aligned.glob("tiny_diffuser.*")])
    assert again.config == codi.config
    assert again.generate_latents(again.prompt("text", "red"), ["image", "audio"], steps=1)["image"].isfinite().all()


def test_it_goes_on_where_it_stopped(aligned, folder, checkpoint):
    def weights():
        return {f"{f.name} {k}": v.clone() for f in files for p in read_parts(f).parts.values() for k, v in p.items()}

    files = sorted(aligned.glob("tiny_*"))
    before = weights()
    options = Options(steps=2, batch_size=2, learning_rate=0.01, warmup=100)
    assert finetune("alignment", folder, aligned, checkpoint, ("image", "audio"), options, ignore)[::-1] == files
    assert not tiny.changed(before, weights())


def test_quantised_weights_are_not_trained(checkpoint, folder, tmp_path):
    files = list(convert(checkpoint, tmp_path / "fp8", "fp8"))
    with pytest.raises(ValueError, match="^diffuser.audio of .* quantised weights are not trained: convert .* fp16"):
        finetune("diffuser_audio", folder, tmp_path / "out", files, (), OPTIONS, ignore)
    # What is not trained may be quantised.
    plain = [file for file in convert(checkpoint, tmp_path / "fp16", "fp16") if "diffuser.audio" in file.name]
    files = [file for file in files if "diffuser.audio" not in file.name]
    assert finetune("diffuser_audio", folder, tmp_path / "out", [*files, *plain], (), OPTIONS, ignore)


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ("diffuser_audio", "diffuser.audio"),
        ("autoencoder_image", "autoencoders.image"),
        ("autoencoder_audio", "autoencoders.audio"),
        ("diffuser_video", "diffuser.image"),
        ("bridging_image", "prompt_encoders.image"),
        ("bridging_video", "prompt_encoders.image"),
        ("bridging_audio", "prompt_encoders.audio"),
    ],
)
def test_other_stages_begin_with_the_given_weights(four, folder, tmp_path, stage, part):
    codi, checkpoint = four
    options = Options(steps=1, batch_size=3, warmup=0, learning_rate=1e-4)
    (file,) = finetune(stage, folder, tmp_path, checkpoint, (), options, ignore)
    assert (tmp_path / module._plan(stage, ()).name / "state.pt").exists()
    before, after = tiny.states(codi)[part], read_parts(file).parts[part]
    assert tiny.changed(before, after)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-3, rtol=0)


def test_stages_exist():
    for stage in STAGES:
        streams = ("image", "video") if stage == "alignment" else ()
        plan = module._plan(stage, streams)
        assert plan.trained and set(plan.trained) <= set(plan.parts)


@pytest.fixture(scope="module")
def encoded(codi, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("latents")
    pairs = Pairs.find(folder, codi.config, ("image", "audio", "text"))
    return out, pairs, PairLatents.load_or_encode(out, codi, pairs, report=ignore)


def tables(data):
    return {name: table.rows for name, table in data.latents.items()}


def test_latents(codi, encoded):
    _, pairs, data = encoded
    for name, scale in (("image", 0.7), ("audio", 1.3)):
        expected = scale * codi.encode(name, torch.stack([pairs[i][name] for i in range(3)]))
        torch.testing.assert_close(data.latents[name].rows.float(), expected, atol=4e-3, rtol=4e-3)
    assert sorted(data.batch(0, 3, 0, ("image",), empty=0)["captions"]) == [f"thing number {i}" for i in range(3)]


def test_latents_are_read_again_unless_something_changed(codi, encoded, monkeypatch):
    out, pairs, data = encoded
    with monkeypatch.context() as patch:
        patch.setattr(CoDi, "encode", None)
        again = PairLatents.load_or_encode(out, codi, pairs, report=ignore)
    assert not tiny.changed(tables(data), tables(again))
    assert [again.latents[m].places for m in again.latents] == [data.latents[m].places for m in data.latents]
    other, lines = tiny.build(), []
    with torch.no_grad():
        next(other.autoencoders["image"].parameters()).add_(0.1)
    changed = PairLatents.load_or_encode(out, other, pairs, report=lines.append)
    assert tiny.changed(tables(data), tables(changed)) == {"image"}
    assert len(lines) == 1 and "pairs_image.safetensors belongs to other data or networks" in lines[0]


def test_batches(encoded):
    data = encoded[2]
    batch = data.batch(1, 5, 3, ("image",), empty=0)
    assert batch.keys() == {"image", "captions", "described"} and batch["image"].dtype == torch.float32
    for latent, caption in zip(batch["image"], batch["captions"]):
        assert torch.equal(latent, data.latents["image"].rows[int(caption[-1])].float())
    again = data.batch(1, 5, 3, ("image",), empty=0)
    assert torch.equal(again["image"], batch["image"]) and again["captions"] == batch["captions"]
    share = sum(caption == "" for caption in data.batch(0, 600, 0, ("image",), empty=0.1)["captions"]) / 600
    assert share == pytest.approx(0.1, abs=0.04)
    with pytest.raises(ValueError, match="are their captions, not audio"):
        data.batch(0, 1, 0, ("image",), ("audio",))


@pytest.mark.parametrize(
    ("stage", "streams", "message"),
    [
        ("prompts", (), "no stage 'prompts' on your own data; choose from alignment, diffuser_image"),
        ("alignment", (), "name both, as in --streams image audio"),
        ("alignment", ("image", "image"), "name both"),
        ("alignment", ("image", "text"), "not a stream: choose from image, video, audio"),
        ("diffuser_image", ("image", "audio"), "--streams belongs to alignment"),
    ],
)
def test_bad_arguments(checkpoint, folder, tmp_path, stage, streams, message):
    with pytest.raises(ValueError, match=message):
        finetune(stage, folder, tmp_path, checkpoint, streams, OPTIONS, ignore)


def test_files_without_connectors(folder, tmp_path):
    networks = {
        name: replace(network, connector=(False, False)) for name, network in tiny.CONFIG.diffuser.networks.items()
    }
    config = replace(tiny.CONFIG, diffuser=replace(tiny.CONFIG.diffuser, networks=networks))
    file = tiny.save(tmp_path / "no_connectors.safetensors", CoDi(config))
    with pytest.raises(ValueError, match="diffuser.image and diffuser.audio of these files have no connectors"):
        finetune("alignment", folder, tmp_path, file, ("image", "audio"), OPTIONS, ignore)


def test_the_command_reports_what_is_wrong_with_the_data(checkpoint, tmp_path, capsys):
    data = own_data.make(tmp_path / "data", 3)
    command = ["train", "alignment", "--data", str(data), "--init", str(checkpoint), "--out", str(tmp_path / "out")]
    command += ["--streams", "image", "audio"]
    (data / "item1.wav").write_bytes(b"no audio")
    assert main(command) == 1
    assert "item1.wav cannot be read as audio" in capsys.readouterr().err
    (data / "item2.txt").unlink()
    assert main(command) == 1
    assert "1 of the 3 entries" in (error := capsys.readouterr().err) and "have no caption: item2." in error
    assert not (tmp_path / "out" / "alignment_image_audio").exists()


def test_init_without_data(checkpoint, capsys):
    assert main(["train", "diffuser_image", "--init", str(checkpoint)]) == 1
    assert "give it with --data" in capsys.readouterr().err


def test_published_files(folder, tmp_path, monkeypatch):
    small = fill_(CoDi(CoDiConfig.from_reference(json.loads((GOLDEN / "small_config.json").read_text()))), "")
    monkeypatch.setattr(published, "CONFIG", small.config)
    monkeypatch.setattr(published.configure, "__defaults__", (small.config,))
    file = tmp_path / "published.safetensors"
    save_file({k: v.contiguous().clone() for k, v in small.to_reference_state_dict().items()}, file)
    options = Options(steps=1, batch_size=1, warmup=0, learning_rate=0.01)
    trained = finetune("alignment", folder, tmp_path / "own", file, ("image", "audio"), options, ignore)
    others = {path.name: path for path in convert(file, tmp_path / "others")}
    assert {path.name for path in trained} < others.keys()
    again = CoDi.load([*{**others, **{path.name: path for path in trained}}.values()])
    for part, state in tiny.states(again).items():
        names = {name.split(".")[0] for name in tiny.changed(small.parts()[part].state_dict(), state)}
        assert names == (OF_ALIGNMENT if part in ("diffuser.image", "diffuser.audio") else set()), part
