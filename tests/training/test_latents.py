"""Latents of the training scenes."""

import numpy as np
import pytest
import tiny
import torch

from codi_backend.data import ShapesAndChimes, is_held_out, sample_scene
from codi_backend.data.world import COLOURS
from codi_backend.training.latents import SceneLatents


@pytest.fixture(scope="module")
def encoded(codi, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    return folder, SceneLatents.load_or_encode(folder, dict(codi.autoencoders), 4, seed=1, report=lambda line: None)


def test_latents_are_scaled(codi, encoded):
    _, data = encoded
    scenes = ShapesAndChimes(4, seed=1)
    for name, scale in (("image", 0.7), ("audio", 1.3)):
        expected = scale * codi.encode(name, torch.stack([scenes[i][name] for i in range(4)]))
        assert data.latents[name].dtype == torch.float16
        torch.testing.assert_close(data.latents[name].float(), expected, atol=2e-3, rtol=2e-3)


def test_latents_are_read_again(encoded):
    folder, data = encoded
    assert {p.name for p in folder.iterdir()} == {"latents_image.safetensors", "latents_audio.safetensors"}
    again = SceneLatents.load_or_encode(folder, dict.fromkeys(data.latents), 4)
    assert again.count == 4 and not tiny.changed(data.latents, again.latents)


def test_batches_follow_from_their_arguments(data):
    def batch(step=3, seed=0):
        return data.batch(step, 5, seed, ("image", "audio"), leave_out=0.25, empty=0.1)

    assert batch()["text"] == batch()["text"]
    assert torch.equal(batch()["image"], batch()["image"])
    assert not torch.equal(batch()["image"], batch(step=4)["image"])
    assert not torch.equal(batch()["image"], batch(seed=1)["image"])
    assert batch()["audio"].shape == (5, 8, 8, 8) and batch()["audio"].dtype == torch.float32


def test_captions_belong_to_the_latents(data):
    batch = data.batch(0, 40, 0, ("image", "audio"), leave_out=0, empty=0)
    for i, text in enumerate(batch["text"]):
        (row,) = [r for r in range(12) if torch.equal(data.latents["image"][r].float(), batch["image"][i])]
        assert torch.equal(data.latents["audio"][row].float(), batch["audio"][i])
        scene = sample_scene(1, row)
        assert not is_held_out(scene.colour, scene.shape, scene.count)
        assert [c for c in COLOURS if c in text.split()] == [scene.colour]


def test_share_of_empty_captions(data):
    texts = data.batch(0, 600, 0, ("image",), leave_out=0, empty=0.1)["text"]
    assert np.mean([t == "" for t in texts]) == pytest.approx(0.1, abs=0.04)
    assert set(data.batch(0, 50, 0, ("image",), leave_out=0, empty=1)["text"]) == {""}
