"""What the stages of autoencoders, prompt encoders and diffusers train, and what they leave alone."""

import re

import pytest
import tiny
import torch
from trained_parameters import ALIGNMENT_PARTS, OF_FRAMES, learning, named, trained

from codi_backend.training.autoencoders import AutoencoderStage
from codi_backend.training.bridging import BridgingStage
from codi_backend.training.diffusers import DiffuserStage
from codi_backend.training.text_encoder import TextEncoderStage


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_autoencoder(tmp_path, modality):
    stage = AutoencoderStage(tiny.CONFIG, modality)
    assert trained(stage, tmp_path) == named(stage, "autoencoder.vae.")


def test_no_such_autoencoder():
    with pytest.raises(ValueError, match="no autoencoder to train for 'text'; choose image or audio"):
        AutoencoderStage(tiny.CONFIG, "text")


def test_text_encoder(tmp_path, data):
    del data.latents["video"], data.latents["text"]
    stage = TextEncoderStage(tiny.CONFIG, data)
    assert trained(stage, tmp_path) == named(stage)


def test_image_and_audio_never_occur_as_a_pair(data):
    del data.latents["video"], data.latents["text"]
    stage = TextEncoderStage(tiny.CONFIG, data)
    seen = [set(stage.batch(step, 2, 0)) & {"image", "audio"} for step in range(4)]
    assert seen == 2 * [{"image"}, {"audio"}]


@pytest.mark.parametrize(
    ("modality", "learns"),
    [
        ("image", r"(?!.*\.temporal\.)(?!logit_scale)"),
        ("video", r".*\.temporal\."),
        ("audio", r"(?!unused|band_norm\.(mean|variance))"),
    ],
)
def test_bridging(tmp_path, codi, modality, learns):
    stage = BridgingStage(codi, modality)
    encoder = {n.removeprefix("encoder.") for n in learning(stage) if n.startswith("encoder.")}
    names = {n.removeprefix("encoder.") for n in named(stage, "encoder.")}
    expected = {n for n in names if re.match(learns, n)}
    assert encoder == expected
    assert learning(stage) - {f"encoder.{n}" for n in encoder} == {"contrast.log_scale"}
    changed = trained(stage, tmp_path)
    assert changed <= learning(stage) and len(changed) > 5


def test_bridging_has_empty_items(codi):
    batch = BridgingStage(codi, "audio").batch(0, 21, 0)
    assert [i for i, text in enumerate(batch["captions"]) if not text] == [0, 20]
    assert not batch["contents"][[0, 20]].any() and batch["contents"][1].any()


def test_distance_of_equal_embeddings_is_zero(codi, monkeypatch):
    stage = BridgingStage(codi, "image")
    batch = stage.batch(0, 4, 0)
    text = stage.text_encoder(stage.text_encoder.tokenize(batch["captions"]))
    monkeypatch.setattr(stage.encoder, "forward", lambda pixels: text)
    assert stage(batch, None)[1]["distance"] == pytest.approx(0, abs=1e-6)
    monkeypatch.setattr(stage.encoder, "forward", lambda pixels: -text)
    assert stage(batch, None)[1]["distance"] == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("stream", ["image", "audio", "text", "video"])
def test_diffuser(tmp_path, data, codi, stream):
    stage = DiffuserStage(codi.diffuser, codi.prompt_encoders["text"], data, stream, ("text", "audio"))
    network = f"diffuser.networks.{'image' if stream == 'video' else stream}."
    alignment = {name for part in ALIGNMENT_PARTS for name in named(stage, network + part)}
    temporal = {n for n in named(stage, network) if re.search(OF_FRAMES, n)} - alignment
    expected = temporal if stream == "video" else named(stage, network) - alignment - temporal
    assert alignment and learning(stage) == expected
    # Attention over a single token depends neither on the query nor on its norm; one frame rate is ever used.
    unused = {n for n in named(stage, network) if re.search(r"attn2\.to_[qk]|norm2", n)}
    assert trained(stage, tmp_path) - unused == expected - unused


def test_video_and_image_batches_take_turns(tmp_path, data, codi):
    stage = DiffuserStage(codi.diffuser, codi.prompt_encoders["text"], data, "video", learn_prompts=True)
    network = "diffuser.networks.image."
    alignment = {name for part in ALIGNMENT_PARTS for name in named(stage, network + part)}
    prompts = {n for n in named(stage, network) if re.search(r"attn2\.to_(v|out)", n)} - alignment
    temporal = {n for n in named(stage, network) if re.search(OF_FRAMES, n)} - alignment
    assert prompts and learning(stage) == prompts | temporal
    assert prompts <= trained(stage, tmp_path)
    turns = [stage.batch(step, 2, 0) for step in range(3)]
    assert [len(turn.get("video", ())) for turn in turns] == [2, 2, 0] and len(turns[2]["image"]) == 16
    assert stage(turns[2], torch.Generator().manual_seed(0))[1].keys() == {"image"}


def test_prompts_get_noise(data, codi):
    stage = DiffuserStage(codi.diffuser, codi.prompt_encoders["text"], data, "image", prompt_noise=0.3)
    batch = stage.batch(0, 200, 0)
    blurred = stage.context(batch, torch.Generator().manual_seed(0))
    sharp = codi.prompt("text", batch["captions"]).embedding
    torch.testing.assert_close(blurred.norm(dim=-1), torch.ones(200, 1))
    distance = (blurred - sharp).norm(dim=-1)
    assert 0.05 < distance.mean() < 0.25 and distance.max() < 0.5
