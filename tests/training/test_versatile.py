"""The small Versatile Diffusion: its scenes, what it begins with, and its stage."""

import functools
import json

import numpy as np
import pytest
import tiny
import torch

from codi_backend.checkpoints.native import read_parts
from codi_backend.conditioning.focus import focus_local
from codi_backend.data import is_held_out
from codi_backend.data.captions import ATTRIBUTES, caption
from codi_backend.evaluation import judge_text
from codi_backend.evaluation.prompts import render
from codi_backend.pipeline import CoDi
from codi_backend.presets import mini, vd_mini
from codi_backend.training import run
from codi_backend.training.pack import pack
from codi_backend.training.recipe import VERSATILE, phases
from codi_backend.training.versatile import start_from
from codi_backend.training.versatile_scenes import LEVELS, VersatileScenes

SCENES, CONTEXTS = 400, 150
OWN = {"contexts.text", "contexts.image", "diffuser.image", "diffuser.text", "diffuser.time"}
OPTIONS = {"steps": 8, "batch_size": 2, "warmup": 0}


@pytest.fixture(scope="module")
def scenes():
    """Latents and tokens that are the numbers of their scenes; of texts, negative where they do not state the tempo."""
    numbers = torch.arange(SCENES, dtype=torch.float16)
    latents = {"image": numbers[:, None], "text": numbers[:, None], "plain": -1 - numbers[:, None]}
    tokens = numbers[None, :CONTEXTS, None, None] + 200 * torch.arange(len(LEVELS))[:, None, None, None]
    return VersatileScenes(latents, tokens.half(), torch.full((1, 1), -1.0).half(), 1)


def rows(scenes, batch, output):
    """Scenes that are made; scenes that are seen, or None; and at which level of focus."""
    made = batch[output][:, 0].tolist()
    made = [int(n) if n >= 0 else int(-1 - n) for n in made]
    seen = [[None, None]] * len(made)
    if "tokens" in batch:
        seen = [[int(n) % 200, LEVELS[int(n) // 200]] for n in batch["tokens"][:, 0, 0].tolist()]
    return [scenes.scenes[n] for n in made], [None if n is None else scenes.scenes[n] for n, _ in seen], seen


def test_batches_follow_from_their_arguments(scenes):
    draw = functools.partial(scenes.batch, size=5, output="image", kinds=("text", "image"))
    one, again = draw(step=3, seed=0), draw(step=3, seed=0)
    assert one["captions"] == again["captions"] and torch.equal(one["tokens"], again["tokens"])
    assert draw(step=4, seed=0)["captions"] != one["captions"] != draw(step=3, seed=1)["captions"]
    assert 0.3 <= one["share"][0] <= 0.9 and len(set(one["share"].tolist())) == 1
    assert scenes.batch(0, 3, 0, "text", ("text",)).keys() == {"text", "captions", "share"}
    assert scenes.batch(0, 3, 0, "text", ("image",)).keys() == {"text", "tokens", "share"}


def test_no_scene_is_held_out(scenes):
    assert not any(is_held_out(s.colour, s.shape, s.count) for s in scenes.scenes)


def test_captions_are_of_the_scenes(scenes):
    batch = scenes.batch(0, 300, 0, "text", ("text",), empty=0.1)
    made, *_ = rows(scenes, batch, "text")
    empty = [text == "" for text in batch["captions"]]
    assert 0.05 < np.mean(empty) < 0.2
    for text, scene, latent in zip(batch["captions"], made, batch["text"]):
        judged = judge_text(text)
        for name in ATTRIBUTES:
            assert getattr(judged, name) in (None, getattr(scene, name))
        assert (latent < 0) == (judged.tempo is None)  # texts state the tempo where their context does
    coloured = [judge_text(text).colour is not None for text in batch["captions"]]
    assert 0.55 < np.mean(coloured) < 0.8
    with_images = scenes.batch(0, 300, 0, "text", ("text", "image"), empty=0.1)["captions"]
    assert 0.3 < np.mean([judge_text(text).colour is not None for text in with_images]) < 0.55


@pytest.mark.parametrize("output", ["image", "text"])
def test_images_pass_on_what_their_focus_keeps(scenes, output):
    batch = scenes.batch(0, 3000, 0, output, ("image",), empty=0.0)
    made, seen, facts = rows(scenes, batch, output)
    assert any(a is not b for a, b in zip(made, seen))
    for level in LEVELS:
        pairs = [(a, b) for a, b, (_, focus) in zip(made, seen, facts) if focus == level]
        colour, shape, count = (
            np.mean([getattr(a, name) == getattr(b, name) for a, b in pairs]) for name in ("colour", "shape", "count")
        )
        assert len(pairs) > (1500 if level == 0.5 else 200)
        assert shape == count == 1
        low, high = {0.5: (1, 1), 0.25: (0.4, 0.8), 0.0: (0, 0.4)}[level]
        assert low <= colour <= high


def test_texts_are_stronger_than_images(scenes):
    batch = scenes.batch(0, 2000, 0, "image", ("text", "image"), empty=0.0)
    made, seen, facts = rows(scenes, batch, "image")
    differ = 0
    for text, scene, image_scene, (_, focus) in zip(batch["captions"], made, seen, facts):
        judged = judge_text(text)
        if focus == 0.5:
            for name in ("colour", "shape", "count"):
                stated = getattr(judged, name)
                assert getattr(scene, name) == (getattr(image_scene, name) if stated is None else stated)
                differ += stated not in (None, getattr(image_scene, name))
    assert differ > 500


@pytest.mark.parametrize("output", ["image", "text"])
def test_contexts_may_be_empty(scenes, output):
    batch = scenes.batch(0, 1000, 0, output, ("text", "image"), empty=0.2)
    black = -1.0 if output == "text" else 0.0
    no_text = np.array([text == "" for text in batch["captions"]])
    no_image = (batch["tokens"][:, 0, 0] == black).numpy()
    assert 0.15 < np.mean(no_text & no_image) < 0.25
    assert 0.05 < np.mean(no_image & ~no_text) < 0.15


def test_a_network_begins_as_it_was(scenes):
    """With one token, the transformers of either set do what the small CoDi's did."""
    shipped = CoDi.load("mini", only=["diffuser.image", "prompt_encoders.text"])
    versatile = CoDi(vd_mini.CONFIG)
    start_from(versatile.diffuser, shipped.diffuser.networks["image"].state_dict())
    prompt = shipped.prompt("text", ["two red stars"]).embedding
    x, when = {"image": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))}, torch.tensor([500])
    with torch.inference_mode():
        expected = shipped.diffuser(x, when, prompt)["image"]
        for kind in ("text", "image"):
            given = versatile.diffuser(x, when, [(kind, prompt, 1.0)])["image"]
            torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("versatile")
    few = functools.partial(VersatileScenes.load_or_encode, scenes=40, contexts=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.VersatileScenes, "load_or_encode", few)
        run.run_stage(VERSATILE, out, OPTIONS, lambda line: None)
    return out


def test_the_stage_trains_its_own_parts_and_no_others(finished):
    parts = {path.stem: read_parts(path) for path in (finished / "parts").iterdir()}
    assert parts.keys() == set(CoDi(vd_mini.CONFIG).parts())
    shipped = read_parts("mini")
    begun = CoDi(vd_mini.CONFIG)
    start_from(begun.diffuser, shipped.parts["diffuser.image"])
    for name, part in parts.items():
        if name in OWN:
            assert [record["stage"] for record in part.training] == list(phases(VERSATILE))
        else:
            assert all(torch.equal(value, shipped.parts[name][key]) for key, value in part.parts[name].items())
            assert part.training and not part.training[0]["stage"].startswith(VERSATILE)
    for name in OWN - {"diffuser.text"}:
        assert tiny.changed(tiny.states(begun)[name], parts[name].parts[name])
    for stage in phases(VERSATILE):
        assert [row["step"] for row in json.loads((finished / stage / "loss.json").read_text())] == [8]


def test_the_encoded_scenes(finished):
    codi = CoDi.load(pack(finished, finished / "packed"))
    data = VersatileScenes.load_or_encode(finished, codi)
    assert {name: z.shape[0] for name, z in data.latents.items()} == {"image": 40, "text": 40, "plain": 40}
    assert data.tokens.shape == (len(LEVELS), 20, 65, 128) and data.tokens.dtype == torch.float16
    tokens = codi.context("image", render("image", data.scenes[:3])).tokens
    for number, level in enumerate(LEVELS):
        expected = focus_local(tokens, level)
        torch.testing.assert_close(data.tokens[number, :3].float(), expected, atol=1e-2, rtol=1e-2)
    [text] = codi.decode("text", data.latents["text"][:1].float() / codi.config.text_autoencoder.scale_factor)
    judged = judge_text(text)
    assert (judged.colour, judged.shape) == (data.scenes[0].colour, data.scenes[0].shape), caption(data.scenes[0])


def test_a_packed_model_generates(finished):
    codi = CoDi.load(pack(finished, finished / "packed"))
    assert codi.config.name == "vd-mini" and codi.outputs == ("text", "image")
    # Their spread is 1 here, and 2 in the small CoDi, where other streams attend to them.
    usual = read_parts("mini").config.text_autoencoder.scale_factor
    assert codi.config.text_autoencoder.scale_factor == pytest.approx(usual / 2, abs=1e-4)
    made = codi.generate(codi.context("text", "two red stars"), ["image", "text"], steps=1)
    assert made["image"].shape == (1, 3, 64, 64) and made["image"].isfinite().all()


def test_a_finished_stage_is_left_alone(finished):
    lines = []
    run.run_stage("versatile", finished, OPTIONS, lines.append)
    assert [line.split(";")[0] for line in lines] == [f"{name} is finished" for name in phases(VERSATILE)]


def test_another_models_folder(tmp_path):
    (tmp_path / "config.json").write_text(mini.CONFIG.to_json())
    with pytest.raises(ValueError, match="run folder of another model: train versatile in a new one"):
        run.run_stage("versatile", tmp_path, OPTIONS)
