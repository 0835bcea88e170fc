"""The model as a whole."""

import dataclasses
import math
import subprocess
import sys

import pytest
import torch

import codi_backend
from codi_backend import CoDi, CoDiConfig, Prompt
from codi_backend.sampling.noise import stream_noise

TEXTS = ["three red stars, slowly", "a blue cross"]
OPTIONS = {"outputs": ["image", "audio"], "steps": 2}


@pytest.fixture(scope="module")
def prompt(codi):
    return codi.prompt("text", TEXTS)


@pytest.fixture(scope="module")
def latents(codi, prompt):
    return codi.generate_latents(prompt, **OPTIONS)


@pytest.fixture(scope="module")
def generated(codi, prompt):
    return codi.generate(prompt, **OPTIONS)


def test_importing_the_package_is_cheap():
    code = "import codi_backend, sys; assert not {'torch', 'diffusers', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = codi_backend.nonsense


def test_parts(codi):
    assert set(codi.parts()) == {
        "diffuser.image",
        "diffuser.audio",
        "prompt_encoders.text",
        "autoencoders.image",
        "autoencoders.audio",
    }
    held = {p.data_ptr() for part in codi.parts().values() for p in part.parameters()}
    assert held == {p.data_ptr() for p in codi.parameters()}


def test_outputs(codi):
    assert codi.outputs == ("image", "audio")
    assert CoDi(CoDiConfig()).outputs == ()


def test_loaded_model_is_ready(checkpoint, codi, prompt):
    loaded = CoDi.load(checkpoint)
    assert not loaded.training
    assert torch.equal(loaded.prompt("text", TEXTS).embedding, prompt.embedding)


def test_prompt(codi, prompt):
    assert isinstance(prompt, Prompt)
    assert prompt.embedding.shape == prompt.unconditional.shape == (2, 1, 32)
    empty = codi.prompt("text", "")
    torch.testing.assert_close(empty.embedding, empty.unconditional)
    torch.testing.assert_close(prompt.unconditional, empty.embedding.expand(2, 1, 32))
    torch.testing.assert_close(codi.prompt("text", TEXTS[1]).embedding, prompt.embedding[1:])


def test_results(generated):
    image, audio = generated["image"], generated["audio"]
    assert generated.keys() == {"image", "audio"}
    assert image.shape == (2, 3, 64, 64) and 0 <= image.min() and image.max() <= 1
    assert audio["waveform"].shape == (2, 1, 10240) and audio["waveform"].abs().max() <= 1
    assert audio["sample_rate"] == 16000
    assert image.isfinite().all() and audio["waveform"].isfinite().all()


def test_same_seed_same_results(codi, prompt, generated):
    torch.manual_seed(99)
    again = codi.generate(prompt, **OPTIONS, seed=0)
    assert torch.equal(again["image"], generated["image"])
    assert torch.equal(again["audio"]["waveform"], generated["audio"]["waveform"])


def test_another_seed_another_result(codi, prompt, latents):
    other = codi.generate_latents(prompt, **OPTIONS, seed=1)
    assert all((other[name] - latents[name]).abs().mean() > 0.1 for name in latents)


def test_order_of_outputs_does_not_matter(codi, prompt, latents):
    again = codi.generate_latents(prompt, ["audio", "image"], steps=2)
    assert all(torch.equal(again[name], latents[name]) for name in latents)


def test_results_of_a_batch_differ(codi):
    twice = codi.generate_latents(codi.prompt("text", TEXTS[:1] * 2), **OPTIONS)
    assert all((z[0] - z[1]).abs().mean() > 0.1 for z in twice.values())


def test_a_larger_batch_keeps_the_first_result(codi, latents):
    alone = codi.generate_latents(codi.prompt("text", TEXTS[:1]), **OPTIONS)
    for name, z in alone.items():
        torch.testing.assert_close(latents[name][:1], z, rtol=1e-3, atol=1e-3)


def test_one_output(codi, prompt, generated):
    alone = codi.generate(prompt, ["image"], steps=2)
    assert alone.keys() == {"image"}
    assert not torch.equal(alone["image"], generated["image"])
    apart = codi.generate_latents(prompt, **OPTIONS, alignment="none")
    assert torch.equal(alone["image"], codi.decode("image", apart["image"]))


def test_results_are_decoded_latents(codi, latents, generated):
    assert {name: z.shape[1:] for name, z in latents.items()} == {n: codi.latent_shape(n) for n in latents}
    assert torch.equal(codi.decode("image", latents["image"]), generated["image"])


def test_latents_are_in_vae_units(codi, prompt, monkeypatch):
    monkeypatch.setattr("codi_backend.sampling.latents.sample", lambda diffuser, noise, *_, **__: noise)
    for name, z in codi.generate_latents(prompt, **OPTIONS).items():
        torch.testing.assert_close(z * codi.autoencoders[name].config.scale_factor, stream_noise(z.shape, 0, name))


def test_latents_begin_with_the_models_means(codi, prompt, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "codi_backend.sampling.latents.sample", lambda _, noise, *__, **options: given.update(options) or noise
    )
    codi.generate_latents(prompt, **OPTIONS)
    assert given["latent_means"] == codi.config.diffuser.latent_means != {}


def test_alignment_scale_is_the_models_unless_given(codi, prompt, monkeypatch):
    given = []
    monkeypatch.setattr(
        "codi_backend.sampling.latents.sample",
        lambda _, noise, __, settings, alignment, **o: given.append(alignment) or noise,
    )
    monkeypatch.setattr(codi, "config", dataclasses.replace(codi.config, modality_guidance=1.7))
    codi.generate_latents(prompt, **OPTIONS)
    codi.generate_latents(prompt, **OPTIONS, alignment_scale=0.3)
    assert [settings.modality_guidance for settings in given] == [1.7, 0.3]


@pytest.mark.parametrize(("setting", "value"), [("steps", 3), ("sampler", "dpmpp_2m_sde"), ("guidance", 2.0)])
def test_default_sampling_is_the_models(codi, prompt, monkeypatch, setting, value):
    def image(**settings):
        return codi.generate_latents(prompt, ["image"], **settings)["image"]

    monkeypatch.setattr(codi, "config", dataclasses.replace(codi.config, steps=2))
    usual, other = image(), image(**{setting: value})
    assert torch.equal(usual, image(sampler="dpmpp_2m", guidance=7.5)) and not torch.equal(usual, other)
    monkeypatch.setattr(codi, "config", dataclasses.replace(codi.config, **{setting: value}))
    assert torch.equal(image(), other)


def test_encoding_and_decoding(codi):
    image = torch.rand(1, 3, 64, 64)
    z = codi.encode("image", image)
    assert z.shape == (1, *codi.latent_shape("image")) and codi.decode("image", z).shape == image.shape
    audio = torch.rand(1, 1, 24000)  # half a second: 6.25 steps, of which the network takes an even number
    assert codi.encode("audio", audio, 48000).shape == (1, 8, 8, 8)
    assert codi.encode("audio", audio, 48000, seconds=1.0).shape == (1, *codi.latent_shape("audio", seconds=1.0))
    assert codi.encode("audio", audio, 48000, seconds=0.16).shape == (1, 8, 2, 8)


def test_progress_reaches_the_sampler(codi, prompt):
    seen = []
    codi.generate_latents(prompt, ["image"], steps=3, progress=lambda *args: seen.append(args))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": []}, "No outputs were asked for: choose from image, audio"),
        ({"outputs": ["image", "image"]}, "named twice"),
        ({"outputs": ["smell"]}, "no modality 'smell'"),
        ({"outputs": ["text"]}, "cannot generate text: choose from image, audio"),
        ({"outputs": ["video"]}, "cannot generate video"),
        ({"seed": -1}, "seed: -1 is out of range; choose a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "out of range"),
        ({"seed": 1.5}, "seed: 1.5 is out of range"),
        ({"steps": 2.5}, "steps: 2.5 is out of range"),
        ({"seconds": 1e9}, "seconds: 1000000000.0 s is out of range; choose more than 0, and at most 600 s"),
        ({"frames": 0}, "frames: 0 frames are out of range; choose 1 to 4096"),
        ({"image_size": 64.5}, "image_size: 64.5 pixels do not fit the model"),
        ({"guidance": 1e30}, r"guidance: 1e\+30 is out of range; choose a number from -100 to 100"),
        ({"strength": {("image", "audio"): math.inf}}, "strength: inf is out of range"),
        ({"alignment_scale": math.nan}, "alignment_scale: nan is out of range"),
        ({"prompts": torch.zeros(1, 1, 32)}, "The prompts are a Tensor: give what `prompt` or `context` makes"),
        ({"prompts": Prompt(torch.full((1, 1, 32), math.nan), torch.zeros(1, 1, 32))}, "The prompt holds values that"),
        ({"steps": 0}, "steps: 0 is out of range"),
        ({"sampler": "heun"}, "no sampler 'heun'"),
        ({"alignment": "loud"}, "no alignment 'loud'"),
        ({"strength": -0.5}, "strength: .* is out of range; choose a number from 0 to 100"),
        ({"strength": math.nan}, "strength: .* is out of range; choose a number from 0 to 100"),
        ({"guidance": math.nan}, "guidance: nan is out of range"),
        ({"guidance": math.inf}, "guidance: inf is out of range"),
        ({"prompts": Prompt(torch.zeros(1, 1, 7), torch.zeros(1, 1, 7))}, "The context is .*prompt encoders"),
    ],
)
def test_bad_arguments(codi, prompt, changes, message):
    with pytest.raises(ValueError, match=message):
        codi.generate(**{"prompts": prompt, **OPTIONS, **changes})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda codi: codi.prompt("smell", "rose"), "no modality 'smell'"),
        (lambda codi: codi.prompt("image", "rose"), "no image prompt encoder; it has text"),
        (lambda codi: codi.prompt("text", []), "give at least one text"),
        (lambda codi: codi.encode("text", ["a rose"]), "no text autoencoder; it has image, audio"),
        (lambda codi: codi.decode("smell", torch.zeros(1)), "no modality 'smell'"),
        (lambda codi: codi.latent_shape("text"), "no text autoencoder"),
    ],
)
def test_what_the_model_lacks(codi, call, message):
    with pytest.raises(ValueError, match=message):
        call(codi)
