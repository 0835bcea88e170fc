"""Latents and embeddings of the training scenes."""

import numpy as np
import pytest
import tiny
import torch

from codi_backend.data import ShapesAndChimes, is_held_out, sample_scene
from codi_backend.data.captions import ADVERBS
from codi_backend.data.images import render_video
from codi_backend.data.world import COLOURS, retimed
from codi_backend.training import latents
from codi_backend.training.latents import SceneLatents

MODALITIES = ("text", "image", "video", "audio")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder, codi = tmp_path_factory.mktemp("latents") / "run", tiny.build(tiny.FOUR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "TIMES", {"image": 2.0, "video": 2 / 3})
        data = SceneLatents.load_or_encode(folder, codi, MODALITIES, MODALITIES, 3, report=lambda line: None)
    return folder, codi, data


def test_latents_are_scaled(encoded):
    _, codi, data = encoded
    scenes = ShapesAndChimes(6, MODALITIES, seed=1, leave_out=0.0)
    for name, scale in (("image", 0.7), ("video", 0.7), ("audio", 1.3), ("text", 0.9)):
        rows = {"image": 6, "video": 2}.get(name, 3)
        items = [scenes[i][name] for i in range(rows)]
        expected = scale * codi.encode(name, items if name == "text" else torch.stack(items))
        assert data.latents[name].dtype == torch.float16
        torch.testing.assert_close(data.latents[name].float(), expected, atol=2e-3, rtol=2e-3)


def test_embeddings_are_those_of_the_prompts(encoded):
    _, codi, data = encoded
    assert {name: len(table) for name, table in data.embeddings.items()} == {"image": 3, "video": 2, "audio": 3}
    scenes = ShapesAndChimes(3, MODALITIES, seed=1)
    for name, table in data.embeddings.items():
        items = torch.stack([scenes[i][name] for i in range(len(table))])
        expected = codi.prompt(name, items, 16000 if name == "audio" else None).embedding[:, 0]
        torch.testing.assert_close(table.float(), expected, atol=2e-3, rtol=2e-3)


def test_latents_are_read_again(encoded, monkeypatch):
    folder, codi, data = encoded
    kinds = {f"latents_{name}" for name in MODALITIES} | {f"embeddings_{name}" for name in data.embeddings}
    assert {p.stem for p in folder.iterdir()} == kinds
    monkeypatch.setattr(latents, "_encode", None)
    again = SceneLatents.load_or_encode(folder, codi, MODALITIES, ("audio",), 3)
    assert not tiny.changed(data.latents, again.latents) and again.embeddings.keys() == {"audio"}


def test_batches_follow_from_their_arguments(data):
    def batch(step=3, seed=0):
        return data.batch(step, 5, seed, ("image", "audio"))

    assert batch()["captions"] == batch()["captions"]
    assert torch.equal(batch()["image"], batch()["image"])
    assert not torch.equal(batch()["image"], batch(step=4)["image"])
    assert not torch.equal(batch()["image"], batch(seed=1)["image"])
    assert batch()["audio"].shape == (5, 8, 8, 8) and batch()["audio"].dtype == torch.float32


def test_captions_and_embeddings_belong_to_the_latents(data):
    batch = data.batch(0, 60, 0, ("image", "audio"), ("text", "audio"), leave_out=0, empty=0)
    assert 15 < batch["is_text"].sum() < 45
    for i, text in enumerate(batch["captions"]):
        (row,) = [r for r in range(12) if torch.equal(data.latents["image"][r].float(), batch["image"][i])]
        assert torch.equal(data.latents["audio"][row].float(), batch["audio"][i])
        scene = sample_scene(1, row)
        assert not is_held_out(scene.colour, scene.shape, scene.count)
        assert [c for c in COLOURS if c in text.split()] == [scene.colour]
        expected = torch.zeros(32) if batch["is_text"][i] else data.embeddings["audio"][row].float()
        assert torch.equal(batch["embedding"][i], expected)


def test_only_scenes_that_all_have(data):
    videos = data.batch(0, 200, 0, ("image", "video"))["video"]
    rows = {r for video in videos for r in range(9) if torch.equal(data.latents["video"][r].float(), video)}
    assert rows == set(range(9))


def test_share_of_empty_prompts(data):
    batch = data.batch(0, 600, 0, ("image",), ("audio",), leave_out=0, empty=0.1)
    assert np.mean([t == "" for t in batch["captions"]]) == pytest.approx(0.1, abs=0.04)
    assert [t == "" for t in batch["captions"]] == batch["is_text"].tolist()
    assert set(data.batch(0, 50, 0, ("image",), leave_out=0, empty=1)["captions"]) == {""}


def test_videos_alone_are_cut_to_other_times(monkeypatch):
    """Rows of pixels in place of latents: a drawn video is that of the scene which its caption describes."""
    scenes = [sample_scene(1, i) for i in range(6)]
    videos = torch.stack([torch.from_numpy(render_video(scene)).permute(3, 0, 1, 2) for scene in scenes])
    data, drawn = SceneLatents({"video": videos, "audio": torch.zeros(6, 1)}, 1), []
    monkeypatch.setattr(latents, "retimed", lambda *args: drawn.append(retimed(*args)) or drawn[-1])
    batch = data.batch(0, 40, 0, ("video",), leave_out=0, empty=0)
    for video, text, scene in zip(batch["video"], batch["captions"], drawn, strict=True):
        assert torch.equal(video, torch.from_numpy(render_video(scene)).permute(3, 0, 1, 2))
        assert ADVERBS[scene.tempo] in text
    assert len({scene.start for scene in drawn}) == 40 and {scene.tempo for scene in drawn} == {"slow", "fast"}
    assert {scene.places for scene in drawn} == {scene.places for scene in scenes}
    together = data.batch(0, 9, 0, ("video", "audio"))["video"]
    assert all(any(torch.equal(video, was) for was in videos) for video in together), (
        "cut to another time than its audio"
    )
