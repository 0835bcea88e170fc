"""What each stage trains, and what it leaves alone."""

import re

import pytest
import tiny
import torch
from torch.nn import functional as F

from codi_backend.diffusion import alphas_cumprod
from codi_backend.training.autoencoders import AutoencoderStage
from codi_backend.training.contrast import Contrast
from codi_backend.training.diffusers import AlignmentStage, DiffuserStage, alignment_parts
from codi_backend.training.loop import Options, train
from codi_backend.training.prompts import PromptStage

OPTIONS = Options(steps=2, batch_size=3, warmup=0)
LISTENING = ("environment_encoder.", "input_connectors.", "output_connectors.")


def trained(stage, out):
    """Names of the parameters that two steps changed."""
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    record = train(stage, OPTIONS, out, lambda line: None)
    assert record["final"]["step"] == 2
    return tiny.changed(before, dict(stage.named_parameters()))


def named(stage, prefix=""):
    return {name for name, _ in stage.named_parameters() if name.startswith(prefix)}


def learning(stage):
    return {name for name, p in stage.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_autoencoder(tmp_path, modality):
    stage = AutoencoderStage(tiny.CONFIG, modality)
    assert trained(stage, tmp_path) == named(stage, "autoencoder.vae.")


def test_no_such_autoencoder():
    with pytest.raises(ValueError, match="no autoencoder to train for 'text'; choose image or audio"):
        AutoencoderStage(tiny.CONFIG, "text")


def test_prompts(tmp_path, data):
    stage = PromptStage(tiny.CONFIG, data)
    assert trained(stage, tmp_path) == named(stage)


def test_pictures_and_sounds_never_meet(data):
    stage = PromptStage(tiny.CONFIG, data)
    assert [set(stage.batch(step, 2, 0)) for step in range(4)] == 2 * [{"image", "text"}, {"audio", "text"}]


@pytest.mark.parametrize("stream", ["image", "audio"])
def test_diffuser(tmp_path, data, stream):
    codi = tiny.build()
    stage = DiffuserStage(codi.diffuser, codi.prompt_encoders["text"], data, stream)
    network = f"diffuser.networks.{stream}."
    listening = {name for part in LISTENING for name in named(stage, network + part)}
    assert listening and learning(stage) == named(stage, network) - listening
    # Attention over a single token depends neither on the query nor on its norm.
    unused = {n for n in named(stage, network) if re.search(r"attn2\.to_[qk]|norm2", n)}
    assert trained(stage, tmp_path) - unused == named(stage, network) - listening - unused


def test_alignment(tmp_path, data):
    codi = tiny.build()
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio"))
    names = trained(stage, tmp_path)
    learns = {n for s in ("image", "audio") for p in LISTENING for n in named(stage, f"diffuser.networks.{s}.{p}")}
    assert names <= learning(stage) == learns | {"contrast.log_scale"}
    assert "contrast.log_scale" in names
    for stream in ("image", "audio"):
        for part in LISTENING:
            assert any(name.startswith(f"diffuser.networks.{stream}.{part}") for name in names)


def test_alignment_parts(codi):
    network = codi.diffuser.networks["image"]
    parts = {id(p) for part in alignment_parts(network) for p in part.parameters()}
    assert parts == {id(p) for name, p in network.named_parameters() if name.startswith(LISTENING)}


def test_alignment_leaves_single_streams_alone(tmp_path, data):
    codi = tiny.build()
    x, when = {"image": data.latents["image"][:2].float()}, torch.tensor([10, 600])
    context = codi.prompt("text", ["red", "blue"]).embedding
    with torch.no_grad():
        before = codi.diffuser(x, when, context)["image"]
        stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio"))
    trained(stage, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(codi.diffuser(x, when, context)["image"], before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("streams", [("image",), ("image", "audio")])
def test_loss_of_a_perfect_prediction_is_zero(data, monkeypatch, streams):
    codi = tiny.build()
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio"), contrast_weight=0)
    if len(streams) == 1:
        stage = DiffuserStage(codi.diffuser, codi.prompt_encoders["text"], data, *streams)
    batch = stage.batch(0, 4, 0)
    alphas = alphas_cumprod()

    @torch.no_grad()
    def loss():
        return float(stage(batch, torch.Generator().manual_seed(0))[0])

    def oracle(noisy, timesteps, context, **_):
        a = alphas[timesteps][:, None, None, None]
        assert context.shape == (4, 1, 32)
        return {m: (x - a.sqrt() * batch[m]) / (1 - a).sqrt() for m, x in noisy.items()}

    monkeypatch.setattr(stage.diffuser, "forward", oracle)
    assert loss() < 1e-4
    monkeypatch.setattr(stage.diffuser, "forward", lambda noisy, *_, **__: noisy)
    assert loss() > 1e-3


def test_nearly_clean_latents_weigh_less(data, monkeypatch):
    codi = tiny.build()
    stage = DiffuserStage(codi.diffuser, codi.prompt_encoders["text"], data, "image")
    batch, weights = stage.batch(0, 64, 0), []

    def off_by_one(noisy, timesteps, context):
        a = alphas_cumprod()[timesteps]
        weights.append((a / (1 - a)).clamp(max=5) * (1 - a) / a)
        a = a[:, None, None, None]
        return {"image": (noisy["image"] - a.sqrt() * batch["image"]) / (1 - a).sqrt() + 1}

    monkeypatch.setattr(stage.diffuser, "forward", off_by_one)
    loss, _ = stage(batch, torch.Generator().manual_seed(0))
    assert weights[0].min() < 0.1 and weights[0].max() == 1
    torch.testing.assert_close(loss, weights[0].mean(), rtol=1e-3, atol=1e-3)


def test_alignment_says_less(data):
    codi = tiny.build()
    stages = [
        stage(codi.diffuser, codi.prompt_encoders["text"], data, streams)
        for stage, streams in ((DiffuserStage, "image"), (AlignmentStage, ("image", "audio")))
    ]
    alone, joint = (sum(map(len, stage.batch(0, 300, 0)["text"])) for stage in stages)
    assert joint < 0.9 * alone


def test_contrast():
    contrast = Contrast()
    a = F.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    matched, shuffled = contrast(a, a), contrast(a, a.roll(1, 0))
    assert matched.item() < 0.1 < 5 < shuffled.item()
    b = F.normalize(a + 0.5, dim=-1)
    torch.testing.assert_close(contrast(a, b), contrast(b, a))
    expected = F.cross_entropy(a @ a.T / 0.07, torch.arange(6))
    torch.testing.assert_close(matched, expected)
