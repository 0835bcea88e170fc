"""What the stages of latent alignment train, and what they leave alone."""

import dataclasses
import re

import pytest
import torch
from trained_parameters import ALIGNMENT_PARTS, OF_FRAMES, learning, named, trained

from codi_backend.models.noise_schedule import alphas_cumprod
from codi_backend.training.alignment import AlignmentStage
from codi_backend.training.diffusers import DiffuserStage, alignment_parts
from codi_backend.training.distillation import DistillationStage
from codi_backend.training.environment import EnvironmentStage


def trained_parts(pair):
    """The parts that a pair trains: temporal connectors only between two streams with a time axis."""
    timed = {"audio", "video"} >= set(pair)
    return [part for part in ALIGNMENT_PARTS if timed or part != "temporal_connectors."]


@pytest.mark.parametrize(
    ("pair", "replay"),
    [
        (("image", "text"), ()),
        (("text", "audio"), (("image", "text"),)),
        (("audio", "video"), (("image", "text"), ("text", "audio"))),
    ],
)
def test_alignment(tmp_path, data, codi, pair, replay):
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, pair, replay)
    networks = {"image" if m == "video" else m for both in (pair, *replay) for m in both}
    learns = {n for s in networks for p in ALIGNMENT_PARTS for n in named(stage, f"diffuser.networks.{s}.{p}")}
    names = trained(stage, tmp_path)
    assert names <= learning(stage) == learns | {"contrast.log_scale", "time_contrast.log_scale"}
    assert "contrast.log_scale" in names
    first = {"image" if m == "video" else m for m in pair}
    for part in trained_parts(pair):
        assert all(any(n.startswith(f"diffuser.networks.{s}.{part}") for n in names) for s in first)


@pytest.mark.parametrize("stream", ["image", "text", "audio", "video"])
def test_environment(tmp_path, data, codi, stream):
    stage = EnvironmentStage(codi.diffuser, codi.prompt_encoders["text"], data, (stream,))
    encoder = f"diffuser.networks.{'image' if stream == 'video' else stream}.environment_encoder."
    temporal = {n for n in named(stage, encoder) if re.search(OF_FRAMES, n)}
    assert learning(stage) == (temporal if stream == "video" else named(stage, encoder))
    assert trained(stage, tmp_path) - temporal == (set() if stream == "video" else learning(stage) - temporal)


def test_environments_learn_together(tmp_path, data, codi):
    stage = EnvironmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("audio", "video"))
    of_audio = named(stage, "diffuser.networks.audio.environment_encoder.")
    of_video = {n for n in learning(stage) if n.startswith("diffuser.networks.image.environment_encoder.")}
    assert of_video and all(re.search(OF_FRAMES, n) for n in of_video)
    assert learning(stage) == of_audio | of_video | {"time_contrast.log_scale"}
    assert of_audio <= trained(stage, tmp_path)


def test_gap_of_environment_tokens(data, codi):
    stage = EnvironmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image",))
    token = codi.prompt("text", ["three red stars", "one blue heart"]).embedding
    embedding = stage.embed(["three red stars", "one blue heart"])
    assert float(stage.gap(token, embedding)) == pytest.approx(0, abs=1e-6)
    assert float(stage.gap(-token, embedding)) == pytest.approx(2, abs=1e-6)


def test_other_widths_have_no_gap(data, codi):
    network = codi.diffuser.networks["image"]
    network.config = dataclasses.replace(network.config, environment_dim=64)
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio"))
    assert stage.gap_weight == 0


def test_earlier_pairs_are_replayed(data, codi):
    replay = (("image", "text"), ("text", "audio"))
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("audio", "video"), replay)
    batches = [stage.batch(step, 2, 0) for step in range(4)]
    turns = [batch.keys() & {"image", "text", "audio", "video"} for batch in batches]
    assert turns == [{"audio", "video"}, {"image", "text"}, {"audio", "video"}, {"text", "audio"}]
    assert [len(batch["captions"]) for batch in batches] == [2, 8, 2, 8]  # videos cost more


def test_sources_are_at_the_target_noise_level_or_below(data, codi, monkeypatch):
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio"))
    environment, forward, levels = type(codi.diffuser).environment, type(codi.diffuser).forward, {}

    def watched_environment(self, latents, timesteps):
        levels["source"], levels["tokens"] = timesteps, environment(self, latents, timesteps)
        return levels["tokens"]

    def watched_forward(self, latents, timesteps, context, **settings):
        levels["target"] = timesteps
        assert settings["environment"] is levels["tokens"]
        return forward(self, latents, timesteps, context, **settings)

    monkeypatch.setattr(type(codi.diffuser), "environment", watched_environment)
    monkeypatch.setattr(type(codi.diffuser), "forward", watched_forward)
    stage(stage.batch(0, 200, 0), torch.Generator().manual_seed(0))
    source, target = levels["source"], levels["target"]
    assert (source <= target).all()
    assert 0.4 < (source == target).float().mean() < 0.6
    assert 0.4 < (source / target.clamp_min(1))[source < target].mean() < 0.6
    assert target.float().mean() > 600  # noisy ones come more often


def test_alignment_distils_the_prediction_for_the_full_caption(data, codi):
    off = {"contrast_weight": 0, "time_weight": 0, "gap_weight": 0}
    streams = codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio")
    stage = AlignmentStage(*streams, distill=True, **off)
    batch = stage.batch(0, 8, 0)
    assert stage(batch, torch.Generator().manual_seed(0))[1]["distillation"] > 1e-6
    batch["captions"] = batch["described"]
    for name, p in codi.diffuser.named_parameters():
        if "connectors." in name and "proj_out" in name:
            p.data.zero_()  # connectors have no effect, and the loss is 0
    loss, figures = stage(batch, torch.Generator().manual_seed(0))
    assert figures["distillation"] == pytest.approx(0, abs=1e-9) and figures["image"] > 0.1
    assert float(loss) == pytest.approx(0, abs=1e-9)


def test_two_streams_with_time_learn_from_the_noise_too(data, codi):
    off = {"contrast_weight": 0, "time_weight": 0, "gap_weight": 0}
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("audio", "video"), distill=True, **off)
    loss, figures = stage(stage.batch(0, 4, 0), torch.Generator().manual_seed(0))
    timed = all(codi.diffuser.networks[n].config.environment_time for n in ("audio", "image"))
    noise = (figures["audio"] + figures["video"]) / 2
    expected = (noise + figures["distillation"]) / 2 if timed else figures["distillation"]
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("pairs", "network"),
    [
        ((("image", "text"),), "image"),
        ((("audio", "text"), ("audio", "video")), "audio"),
        ((("video", "audio"), ("image", "text")), "image"),
    ],
)
def test_distillation(tmp_path, data, codi, pairs, network):
    stage = DistillationStage(codi.diffuser, codi.prompt_encoders["text"], data, pairs)
    connectors = {n for part in ALIGNMENT_PARTS[1:] for n in named(stage, f"diffuser.networks.{network}.{part}")}
    assert learning(stage) == connectors
    names = trained(stage, tmp_path)
    assert names <= connectors
    used = {
        part for part in ALIGNMENT_PARTS[1:] if any(n.startswith(f"diffuser.networks.{network}.{part}") for n in names)
    }
    assert used == {part for pair in pairs for part in trained_parts(pair)} - {"environment_encoder."}


def test_pairs_of_distillation_take_turns(data, codi):
    pairs = (("video", "audio"), ("image", "text"))
    stage = DistillationStage(codi.diffuser, codi.prompt_encoders["text"], data, pairs)
    batches = [stage.batch(step, 2, 0) for step in range(3)]
    turns = [batch.keys() & {"image", "text", "audio", "video"} for batch in batches]
    assert turns == [{"audio", "video"}, {"image", "text"}, {"audio", "video"}]
    assert [len(batch["captions"]) for batch in batches] == [2, 16, 2]  # videos cost more


def test_target_streams_attend_to_up_to_three_sources(data, codi, monkeypatch):
    stage = DistillationStage(
        codi.diffuser, codi.prompt_encoders["text"], data, (("audio", "text"), ("audio", "video"))
    )
    network, attended = type(codi.diffuser.networks["audio"]), []
    forward = network.forward

    def watched(self, x, emb, context, sources=(), gate=0.0):
        if gate:
            attended.append([tokens for tokens, weight in sources])
        return forward(self, x, emb, context, sources, gate)

    monkeypatch.setattr(network, "forward", watched)
    for step in range(0, 8, 2):
        stage(stage.batch(step, 2, 0), torch.Generator().manual_seed(0))
    assert [len(sources) for sources in attended] == [1, 2, 3, 1]
    assert not torch.equal(*attended[1])  # each with noise of its own


def test_distillation_target_is_the_prediction_for_the_full_caption(data, codi):
    stage = DistillationStage(codi.diffuser, codi.prompt_encoders["text"], data, (("image", "text"),))
    batch = stage.batch(0, 8, 0)
    loss, figures = stage(batch, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(figures["text to image"], rel=1e-5) and float(loss) > 1e-6
    batch["captions"] = batch["described"]
    for name, p in codi.diffuser.named_parameters():
        if "connectors." in name and "proj_out" in name:
            p.data.zero_()  # connectors have no effect, and the loss is 0
    assert float(stage(batch, torch.Generator().manual_seed(0))[0]) == pytest.approx(0, abs=1e-9)


def test_alignment_parts(codi):
    network = codi.diffuser.networks["image"]
    parts = {id(p) for part in alignment_parts(network) for p in part.parameters()}
    assert parts == {id(p) for name, p in network.named_parameters() if name.startswith(ALIGNMENT_PARTS)}


def test_alignment_leaves_single_streams_alone(tmp_path, data, codi):
    x, when = {"image": data.latents["image"][:2].float()}, torch.tensor([10, 600])
    context = codi.prompt("text", ["red", "blue"]).embedding
    with torch.no_grad():
        before = codi.diffuser(x, when, context)["image"]
        stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio"))
    trained(stage, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(codi.diffuser(x, when, context)["image"], before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("streams", [("image",), ("image", "audio")])
def test_loss_is_the_v_loss(data, codi, monkeypatch, streams):
    stage = AlignmentStage(
        codi.diffuser,
        codi.prompt_encoders["text"],
        data,
        ("image", "audio"),
        contrast_weight=0,
        time_weight=0,
        gap_weight=0,
    )
    if len(streams) == 1:
        stage = DiffuserStage(codi.diffuser, codi.prompt_encoders["text"], data, *streams)
    batch = stage.batch(0, 64, 0)
    alphas, off = alphas_cumprod(), 0.0

    def oracle(noisy, timesteps, context, **_):
        a = alphas[timesteps][:, None, None, None]
        assert context.shape == (64, 1, 32)
        # An error of sqrt(a) in eps is one of 1 in v.
        return {m: (x - a.sqrt() * batch[m]) / (1 - a).sqrt() + off * a.sqrt() for m, x in noisy.items()}

    monkeypatch.setattr(stage.diffuser, "forward", oracle)
    with torch.no_grad():
        assert float(stage(batch, torch.Generator().manual_seed(0))[0]) < 1e-4
        off = 1.0
        assert float(stage(batch, torch.Generator().manual_seed(0))[0]) == pytest.approx(1.0, abs=0.01)


def test_captions_of_alignment_leave_out_more(data, codi):
    stages = [
        stage(codi.diffuser, codi.prompt_encoders["text"], data, streams)
        for stage, streams in ((DiffuserStage, "image"), (AlignmentStage, ("image", "audio")))
    ]
    alone, joint = (sum(map(len, stage.batch(0, 300, 0)["captions"])) for stage in stages)
    assert joint < 0.9 * alone


def test_alignment_sees_high_noise_more_often(data, codi):
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio"))
    when = stage.timesteps(4000, torch.Generator().manual_seed(0))
    assert when.min() >= 0 and when.max() <= 999
    counts = torch.histc(when.float(), 4, 0, 1000) / 4000
    torch.testing.assert_close(counts, torch.tensor([1, 3, 5, 7]) / 16, atol=0.03, rtol=0)
