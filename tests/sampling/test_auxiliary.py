"""Auxiliary streams: sampled beside the outputs, and dropped."""

import dataclasses
import json

import pytest
import torch
from tiny import save

from codi_backend import CoDi, CoDiConfig
from codi_backend.cli.main import main
from codi_backend.config import DiffuserConfig, UNetConfig
from codi_backend.evaluation.fingerprints import fingerprint
from codi_backend.evaluation.prompts import Whole
from codi_backend.evaluation.runs import Run, Settings, heading
from codi_backend.sampling.auxiliary import auxiliary_streams
from codi_backend.training.samples import write_samples

AUXILIARY = {"image": ("audio",)}


@pytest.fixture
def with_auxiliary(codi, monkeypatch):
    """A model that adds an auxiliary audio stream to images."""
    monkeypatch.setattr(codi, "config", dataclasses.replace(codi.config, auxiliary_streams=AUXILIARY))
    return codi


@pytest.fixture
def prompt(codi):
    return codi.prompt("text", ["three red stars", "a blue cross"])


def test_an_output_equals_that_of_a_joint_run(codi, with_auxiliary, prompt):
    both = codi.generate_latents(prompt, ["image", "audio"], steps=2)
    alone = codi.generate_latents(prompt, ["image"], steps=2, alignment="none")
    out = codi.generate_latents(prompt, ["image"], steps=2)
    assert out.keys() == {"image"}
    torch.testing.assert_close(out["image"], both["image"])
    assert (out["image"] - alone["image"]).abs().max() > 1e-3


@pytest.fixture
def made(with_auxiliary, prompt, monkeypatch):
    """Shapes of the streams that are sampled."""
    shapes = {}

    def sampled(diffuser, noise, *_, **options):
        shapes.clear()
        shapes.update({name: tuple(z.shape[1:]) for name, z in noise.items()})
        return noise

    monkeypatch.setattr("codi_backend.sampling.latents.sample", sampled)

    def call(outputs, **options):
        with_auxiliary.generate_latents(prompt, outputs, **options)
        return dict(shapes)

    return call


def test_which_streams_are_added(with_auxiliary, made):
    """Only where streams attend to each other, and none twice."""
    held = {"audio": torch.zeros(1, *with_auxiliary.latent_shape("audio"))}
    start = {"image": torch.zeros(1, *with_auxiliary.latent_shape("image"))}
    assert list(made(["image"])) == ["image", "audio"]
    assert list(made(["audio"])) == ["audio"]
    image = {"image": torch.zeros(1, *with_auxiliary.latent_shape("image"))}
    assert list(made(["image"], held=held)) == ["image", "audio"]
    assert with_auxiliary.auxiliary_streams(["image"], held=image) == []  # it is not made
    assert list(made(["image"], alignment="none")) == ["image"]
    assert list(made(["image"], alignment="released")) == ["image"]
    assert list(made(["image"], start=start, fidelity=0.5)) == ["image"]
    assert with_auxiliary.auxiliary_streams(["image"]) == ["audio"]
    assert (
        with_auxiliary.auxiliary_streams(["image", "audio"])
        == with_auxiliary.auxiliary_streams(["image"], fidelity=0.1)
        == []
    )


def test_an_auxiliary_stream_is_as_long_as_the_output(with_auxiliary, made):
    rate, seconds = with_auxiliary.config.image_autoencoder.frame_rate, with_auxiliary.config.audio_autoencoder.seconds
    frames = round(2 * seconds * rate)
    usual = made(["image"])["audio"]
    twice = (usual[0], 2 * usual[1], usual[2])
    assert made(["image"], frames=frames)["audio"] == pytest.approx(twice, abs=4)
    assert made(["image"], seconds=2 * seconds)["audio"] == twice
    assert made(["image", "audio"], frames=frames) == made(["image"], frames=frames)


def test_a_model_without_the_part_makes_it_alone(with_auxiliary, tmp_path):
    file = save(tmp_path / "tiny.safetensors", with_auxiliary)
    parts = ["prompt_encoders.text", "diffuser.image", "autoencoders.image"]
    codi = CoDi.load(file, only=parts)
    assert codi.config.auxiliary_streams == AUXILIARY and codi.auxiliary_streams(["image"]) == []
    prompt = codi.prompt("text", "stars")
    out, alone = (
        codi.generate_latents(prompt, ["image"], steps=2, alignment=how)["image"] for how in ("paper", "none")
    )
    torch.testing.assert_close(out, alone)


def test_command(with_auxiliary, tmp_path):
    file = save(tmp_path / "tiny.safetensors", with_auxiliary)
    found = []
    for alignment in ("paper", "none"):
        out = tmp_path / alignment
        arguments = ["--model", str(file), "--steps", "1", "--outputs", "image", "--alignment", alignment]
        assert main(["generate", *arguments, "--out", str(out)]) == 0
        found.append(json.loads((out / "result.json").read_text()))
        assert not (out / "audio.wav").exists()
    assert [result["auxiliary_streams"] for result in found] == [["audio"], []]
    assert [result["candidates"] for result in found] == [1, 1]
    assert (tmp_path / "paper/image.png").read_bytes() != (tmp_path / "none/image.png").read_bytes()


def test_auxiliary_streams_count_in_best_of_n(with_auxiliary, tmp_path, monkeypatch):
    """Candidates of an output with an auxiliary stream can be compared."""
    monkeypatch.setattr(with_auxiliary, "config", dataclasses.replace(with_auxiliary.config, num_candidates=2))
    asked = []
    monkeypatch.setattr(
        "codi_backend.sampling.latents.sample",
        lambda _, noise, prompt, settings, *__, **options: (
            asked.append(settings.num_candidates) or {k: n[:1] for k, n in noise.items()}
        ),
    )
    prompt, start = (
        with_auxiliary.prompt("text", "stars"),
        {"image": torch.zeros(1, *with_auxiliary.latent_shape("image"))},
    )
    for options in ({}, {"alignment": "none"}, {"start": start, "fidelity": 0.5}, {"candidates": 3}):
        with_auxiliary.generate_latents(prompt, ["image"], **options)
    assert asked == [2, 1, 1, 3]


def test_samples_during_training_are_of_the_stream_alone(with_auxiliary, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        "codi_backend.sampling.latents.sample", lambda _, noise, *__, **options: made.append(list(noise)) or noise
    )
    write_samples(with_auxiliary, ["image"], ["stars"], tmp_path, 1)
    assert made == [["image"]]


def test_configuration():
    config = CoDiConfig(auxiliary_streams={"video": ("audio", "text")})
    assert CoDiConfig.from_json(config.to_json()) == config
    networks = {name: UNetConfig(4, 32) for name in ("image", "text", "audio")}
    config = dataclasses.replace(config, diffuser=DiffuserConfig(networks=networks))
    assert auxiliary_streams(config, ["video"]) == ["text", "audio"]
    assert auxiliary_streams(config, ["video", "audio"]) == auxiliary_streams(config, ["video"], ["audio"]) == ["text"]
    assert auxiliary_streams(config, ["image"]) == auxiliary_streams(config, ["video"], mode="none") == []
    assert auxiliary_streams(config, ["video"], start_strength=0.5) == []


def test_evaluation_records_them(codi, monkeypatch):
    """A run's heading names them, so that its results are not taken for those of a stream alone."""
    settings = Settings(seed=0, steps=1, sampler="ddim", guidance=2.0, candidates=2)
    runs = [Run("a", Whole("text"), outputs, how) for outputs, how in ((("image",), "paper"), (("image",), "none"))]
    runs.append(Run("b", Whole("text"), ("image", "audio"), "paper"))
    before = fingerprint(codi)
    monkeypatch.setattr(codi, "config", dataclasses.replace(codi.config, auxiliary_streams=AUXILIARY, num_candidates=2))
    heads = [heading(codi, "", run, settings) for run in runs]
    assert [head.get("companions") for head in heads] == [["audio"], None, None]
    assert [head["candidates"] for head in heads] == [2, 1, 2]
    assert fingerprint(codi) == before
    bias = codi.diffuser.networks["audio"].input_blocks[0][0].bias.data
    kept, before = bias.clone(), [fingerprint(codi, run) for run in runs[:2]]
    bias += 1
    try:
        assert [fingerprint(codi, run) == b for run, b in zip(runs, before)] == [False, True]
    finally:
        bias.copy_(kept)
