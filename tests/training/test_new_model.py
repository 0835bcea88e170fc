"""A new model of a user's data, from nothing."""

import dataclasses
import json
import re
import shutil

import own_data
import pytest
import tiny
import torch

from codi_backend.checkpoints.native import read_parts
from codi_backend.cli.main import main
from codi_backend.media.write import save_video
from codi_backend.pipeline import CoDi
from codi_backend.training import samples
from codi_backend.training.new_model import Settings, begin
from codi_backend.training.pack import pack
from codi_backend.training.recipe import RECIPE, STAGES, phases
from codi_backend.training.run_folder import read_config

WORDS = (",", "and", "apple", "bell", "moves", "notes", "red", "shines", "star", "two", "yellow")


def settings(path, **others):
    """A configuration file of a model with all modalities and a vocoder, without a vocabulary."""
    model = dataclasses.asdict(tiny.FOUR)
    del model["text_autoencoder"]["words"]
    for network in ("encoder", "decoder"):
        del model["text_autoencoder"][network]["vocab_size"]
    model["audio_autoencoder"]["vocoder"] = dataclasses.asdict(tiny.VOCODER)
    path.write_text(json.dumps({"model": model} | others))
    return path


def make(folder):
    """Entries with images, with audio, with video, and with several of them."""
    for i, colour in enumerate(("red", "yellow", "blue")):
        own_data.write_image(folder / f"image{i}.png", colour)
        own_data.write_audio(folder / f"audio{i}.wav", 200 + 100 * i)
    save_video(folder / "video.mp4", torch.rand(3, 4, 32, 32), 6.25)
    rows = [("image0.png", "", "", "Red apple"), ("image1.png", "", "", "yellow star"), ("image2.png", "", "", "star")]
    rows += [("", "", f"audio{i}.wav", f"{'two ' * i}notes") for i in range(3)]
    rows += [("image1.png", "", "audio1.wav", "yellow star, shines, and bell"), ("", "video.mp4", "", "star, moves")]
    rows += [("", "video.mp4", "audio2.wav", "star, moves, and two notes")]
    lines = ["image,video,audio,text", *(",".join(f'"{value}"' for value in row) for row in rows)]
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder / "metadata.csv"


def command(data, config, out, stage="all"):
    command = ["train", stage, "--data", data, "--config", config, "--out", out, "--batch-size", 2]
    return [str(word) for word in command]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "data"
    folder.mkdir()
    return make(folder)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return settings(
        tmp_path_factory.mktemp("config") / "own.json",
        training={stage: {"steps": 1, "warmup": 0} for stage in STAGES}
        | {"diffuser_image": {"steps": 2, "warmup": 0, "prompts": ["text", "audio"]}}
        | {"distillation_audio": {"steps": 2, "warmup": 0, "sources": ["image", "text"]}},
        augmentation={"crop": 0.2, "colour": 0.2, "speed": 0.1, "copies": 2},
    )


@pytest.fixture(scope="module")
def finished(data, config, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "own"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "_SAMPLING", samples._SAMPLING | {"steps": 1})
        assert main(command(data, config, out)) == 0
    return out


def test_every_stage_trains_and_the_model_generates(finished, tmp_path):
    config = read_config(finished)
    assert config.text_autoencoder.words == WORDS
    assert config.text_autoencoder.decoder.vocab_size == len(WORDS) + 3
    for stage in STAGES:
        for name in phases(stage):
            assert (finished / name / "state.pt").exists(), name
    codi = CoDi.load(pack(finished, tmp_path))
    made = codi.generate_latents(codi.prompt("text", "red apple"), ["text", "image", "video", "audio"], steps=1)
    assert all(z.isfinite().all() for z in made.values())
    assert set(re.findall(r"\w+|,", codi.decode("text", made["text"])[0])) <= set(WORDS)
    assert codi.decode("audio", made["audio"]).abs().max() <= 1
    (record,) = read_parts(finished / "parts" / "prompt_encoders.audio.safetensors").training
    assert record["stage"] == "bridging_audio" and record["options"]["steps"] == 1
    curve = json.loads((finished / "distillation_audio" / "loss.json").read_text())
    assert {key for row in curve for key in row} >= {"image to audio", "text to audio"}


def test_samples_have_captions_of_their_streams(data, config, tmp_path):
    own = begin(Settings.read(config), data, tmp_path / "own", lambda line: None)
    assert set(own.examples(("image",))) <= {"Red apple", "yellow star", "star", "yellow star, shines, and bell"}
    assert own.examples(("image", "audio")) == ["yellow star, shines, and bell"]
    assert set(own.examples(("video",))) == {"star, moves", "star, moves, and two notes"}
    assert len(own.examples(("image", "video"))) == 4  # no entry has both: captions of any


def test_it_goes_on_and_refuses_others(finished, data, config, tmp_path, capsys):
    assert main(command(data, config, finished, "autoencoder_text")) == 0
    assert "autoencoder_text is finished" in capsys.readouterr().out
    other = settings(tmp_path / "other.json", augmentation={"crop": 0.3})
    assert main(command(data, other, finished, "autoencoder_text")) == 1
    assert "belongs to a run with another --config: give the same, or another --out" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    longer = make(tmp_path / "data")
    longer.write_text(longer.read_text().replace("bell", "bells"))
    assert main(command(longer, config, finished, "autoencoder_text")) == 1
    assert "belongs to a run with another --data" in capsys.readouterr().err


def test_more_steps_prolong_a_diffuser_and_keep_what_later_stages_trained(finished, data, config, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    longer = json.loads(config.read_text())
    longer["training"]["diffuser_text"] |= {"steps": 2}
    (tmp_path / "longer.json").write_text(json.dumps(longer))
    assert main(command(data, tmp_path / "longer.json", out, "diffuser_text")) == 0
    part = "diffuser.text"
    old, new = (read_parts(folder / "parts" / f"{part}.safetensors") for folder in (finished, out))
    changed = {key.partition(".")[0] for key in old.parts[part] if not old.parts[part][key].equal(new.parts[part][key])}
    assert changed and not changed & {"environment_encoder", "input_connectors", "output_connectors"}
    assert {r["stage"] for r in old.training} == {r["stage"] for r in new.training}
    assert {r["options"]["steps"] for r in new.training if r["stage"] == "diffuser_text"} == {2}


def test_a_model_of_images_and_texts_alone(tmp_path, capsys):
    data, values = own_data.make(tmp_path / "data", 3), json.loads(settings(tmp_path / "four.json").read_text())
    model = values["model"]
    for name in ("audio_encoder", "audio_autoencoder"):
        model[name] = None
    del model["diffuser"]["networks"]["audio"]
    model["diffuser"]["networks"]["image"] |= {"temporal": False}
    model["image_encoder"] |= {"temporal": False}
    config = tmp_path / "two.json"
    steps = {stage: {"steps": 1, "warmup": 0} for stage in STAGES}
    steps["distillation_image"] |= {"sources": ["text", "audio"]}
    config.write_text(json.dumps({"model": model, "training": steps}))
    assert main(command(data, config, tmp_path / "out")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith("the model has no such part.")]
    left_out = {line.split(" ")[0] for line in lines}
    assert {"autoencoder_audio", "vocoder", "bridging_image/video", "environment/video+audio"} <= left_out
    assert {"distillation_video", "alignment/text-audio"} <= left_out
    assert not left_out & {"bridging_image/image", "alignment/image-text", "distillation_image", "distillation_text"}
    codi = CoDi.load(pack(tmp_path / "out", tmp_path / "packed"))
    assert codi.generate_latents(codi.prompt("text", "thing"), ["image", "text"], steps=1)["image"].isfinite().all()
    steps["distillation_image"] = {"steps": 1, "warmup": 0, "sources": ["audio"]}
    steps["diffuser_text"] = {"steps": 2, "warmup": 0, "prompts": ["audio"]}
    config.write_text(json.dumps({"model": model, "training": steps}))
    assert main(command(data, config, tmp_path / "out", "distillation_image")) == 0
    assert "distillation_image is left out" in capsys.readouterr().out
    assert main(command(data, config, tmp_path / "out", "diffuser_text")) == 1
    assert "The model has no encoder for prompts of audio: name others" in capsys.readouterr().err


def test_broken_entries_are_left_out(data, config, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    (folder / "audio2.wav").write_bytes(b"broken")
    assert main(command(folder / "metadata.csv", config, tmp_path / "out", "autoencoder_audio")) == 1
    assert "audio2.wav cannot be read as audio" in capsys.readouterr().err and not (tmp_path / "out").exists()
    for _ in range(2):
        own = begin(Settings.read(config), folder / "metadata.csv", tmp_path / "out", str, skip_broken=True)
        assert len(own.pairs.entries) == 7 and own.words() == tuple(w for w in WORDS)
    assert "audio2.wav" in (tmp_path / "out" / "left_out.txt").read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("[]", "must be an object with augmentation, model, training, of which model is needed"),
        ("{", "Expecting"),
        ({"training": {}}, "of which model is needed"),
        ({"model": {"nam": "x"}}, "no field nam"),
        ({"model": {}, "training": {"diffuser": {}}}, "no stage or phase 'diffuser'; choose from"),
        ({"model": {}, "training": {"vocoder": {"step": 3}}}, "vocoder has no option 'step'"),
        ({"model": {}, "training": {"vocoder": {"steps": "3"}}}, "steps of vocoder is '3': give a number"),
        ({"model": {}, "training": {"vocoder": {"steps": 0}}}, "Training of 0 steps"),
        ({"model": {}, "training": {"diffuser_image": {"prompts": ["smell"]}}}, "must be a list of text, image"),
        ({"model": {}, "training": {"diffuser_image": {"sources": ["audio"]}}}, "diffuser_image has no sources"),
        (
            {"model": {}, "training": {"distillation_audio": {"sources": ["audio"]}}},
            "sources of distillation_audio must be a list of text, image, video",
        ),
        ({"model": {}, "training": {"distillation_audio": {"sources": []}}}, "must be a list of text, image, video"),
        ({"model": {}, "augmentation": {"crop": 1.5}}, "crop of 1.5 is not possible"),
        ({"model": {}, "augmentation": {"copies": 100}}, "100 copies of each content"),
    ],
)
def test_faulty_configurations(tmp_path, values, message):
    path = tmp_path / "faulty.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(ValueError, match=f"faulty.json cannot be used: .*{message}"):
        Settings.read(path)


def test_arguments_that_do_not_go_together(data, config, tmp_path, capsys):
    for words, message in (
        (["all", "--data", data], "give its configuration with --config"),
        (["all", "--config", config], "give --data with it"),
        (["all", "--config", tmp_path / "absent.json", "--data", data], "absent.json"),
        (["diffuser", "--config", config, "--data", data], "no stage 'diffuser'"),
    ):
        assert main(["train", *map(str, words), "--out", str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_modality_without_entries(config, tmp_path):
    data = own_data.make(tmp_path / "data", 2)
    with pytest.raises(ValueError, match="No entry of .*data has video with a caption, and the model is to have it"):
        begin(Settings.read(config), data, tmp_path / "out", str)


def test_the_recipe_is_that_of_the_built_in_model():
    """Every phase applies to a model that has everything, unchanged."""
    model = dataclasses.replace(
        tiny.FOUR, audio_autoencoder=dataclasses.replace(tiny.FOUR.audio_autoencoder, vocoder=tiny.VOCODER)
    )
    for stage in RECIPE:
        for phase in phases(stage).values():
            assert phase.of(model) == phase
