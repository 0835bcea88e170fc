"""What each stage trains, and what it leaves alone."""

import dataclasses
import math
import re

import pytest
import tiny
import torch
from torch.nn import functional as F

from codi_backend.diffusion import alphas_cumprod
from codi_backend.training.alignment import AlignmentStage
from codi_backend.training.autoencoders import AutoencoderStage
from codi_backend.training.bridging import BridgingStage
from codi_backend.training.contrast import Contrast, TimeContrast
from codi_backend.training.diffusers import DiffuserStage, alignment_parts
from codi_backend.training.environment import EnvironmentStage
from codi_backend.training.listening import ListeningStage
from codi_backend.training.loop import Options, train
from codi_backend.training.prompts import PromptStage

OPTIONS = Options(steps=2, batch_size=3, warmup=0)
LISTENING = ("environment_encoder.", "temporal_connectors.", "input_connectors.", "output_connectors.")
OF_FRAMES = r"temporal_|clip_attn|\.1\.ff\.|frameshift"


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
    del data.latents["video"], data.latents["text"]
    stage = PromptStage(tiny.CONFIG, data)
    assert trained(stage, tmp_path) == named(stage)


def test_pictures_and_sounds_never_meet(data):
    del data.latents["video"], data.latents["text"]
    stage = PromptStage(tiny.CONFIG, data)
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


def test_bridging_has_nothing_for_nothing(codi):
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
    listening = {name for part in LISTENING for name in named(stage, network + part)}
    temporal = {n for n in named(stage, network) if re.search(OF_FRAMES, n)} - listening
    expected = temporal if stream == "video" else named(stage, network) - listening - temporal
    assert listening and learning(stage) == expected
    # Attention over a single token depends neither on the query nor on its norm; one frame rate is ever used.
    unused = {n for n in named(stage, network) if re.search(r"attn2\.to_[qk]|norm2", n)}
    assert trained(stage, tmp_path) - unused == expected - unused


def test_videos_and_pictures_teach_prompts_in_turns(tmp_path, data, codi):
    stage = DiffuserStage(codi.diffuser, codi.prompt_encoders["text"], data, "video", learn_prompts=True)
    network = "diffuser.networks.image."
    listening = {name for part in LISTENING for name in named(stage, network + part)}
    prompts = {n for n in named(stage, network) if re.search(r"attn2\.to_(v|out)", n)} - listening
    temporal = {n for n in named(stage, network) if re.search(OF_FRAMES, n)} - listening
    assert prompts and learning(stage) == prompts | temporal
    assert prompts <= trained(stage, tmp_path)
    turns = [stage.batch(step, 2, 0) for step in range(3)]
    assert [len(turn.get("video", ())) for turn in turns] == [2, 2, 0] and len(turns[2]["image"]) == 16
    assert stage(turns[2], torch.Generator().manual_seed(0))[1].keys() == {"image"}


def at_work(pair):
    """The parts that learn when these two hear each other: moments are told between streams with time alone."""
    timed = {"audio", "video"} >= set(pair)
    return [part for part in LISTENING if timed or part != "temporal_connectors."]


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
    learns = {n for s in networks for p in LISTENING for n in named(stage, f"diffuser.networks.{s}.{p}")}
    names = trained(stage, tmp_path)
    assert names <= learning(stage) == learns | {"contrast.log_scale", "time_contrast.log_scale"}
    assert "contrast.log_scale" in names
    first = {"image" if m == "video" else m for m in pair}
    for part in at_work(pair):
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
    of_sound = named(stage, "diffuser.networks.audio.environment_encoder.")
    of_video = {n for n in learning(stage) if n.startswith("diffuser.networks.image.environment_encoder.")}
    assert of_video and all(re.search(OF_FRAMES, n) for n in of_video)
    assert learning(stage) == of_sound | of_video | {"time_contrast.log_scale"}
    assert of_sound <= trained(stage, tmp_path)


def eight_moments(samples=1):
    """Tokens of 8 moments that differ from one another, the same in every sample, beside what holds for all of them."""
    moments = torch.eye(8).repeat(samples, 1, 1)
    return torch.cat([moments, torch.ones_like(moments)], -1)


@torch.no_grad()
def test_moments_are_told_from_others_of_the_sample():
    contrast, tokens = TimeContrast(), eight_moments()
    assert float(contrast(tokens, tokens)) < 0.01 < 2.5 < float(contrast(tokens, tokens.flip(1)))
    # What holds for the whole stream tells nothing about when. A single sample is told from no other.
    assert float(contrast(torch.ones(1, 8, 16), tokens)) == pytest.approx(math.log(8) / 2, abs=1e-3)
    fine = tokens.repeat_interleave(2, 1)
    assert float(contrast(fine, tokens)) < 0.1


@torch.no_grad()
def test_moments_are_told_from_the_same_of_other_samples():
    contrast = TimeContrast()
    alike = eight_moments(samples=4)  # as if the number of the time step were all that is told
    assert float(contrast(alike, alike)) == pytest.approx(math.log(4) / 2, abs=1e-3)
    signed = alike * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    assert float(contrast(signed, signed)) == pytest.approx(math.log(2) / 2, abs=1e-2)


def test_environment_is_told_apart_from_what_is_shown(data, codi):
    stage = EnvironmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image",))
    token = codi.prompt("text", ["three red stars", "one blue heart"]).embedding
    shown = stage.embed(["three red stars", "one blue heart"])
    assert float(stage.gap(token, shown)) == pytest.approx(0, abs=1e-6)
    assert float(stage.gap(-token, shown)) == pytest.approx(2, abs=1e-6)


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
    assert [len(batch["captions"]) for batch in batches] == [2, 8, 2, 8]  # clips cost more


def test_speakers_are_as_noisy_as_listeners_or_less(data, codi, monkeypatch):
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio"))
    environment, forward, levels = type(codi.diffuser).environment, type(codi.diffuser).forward, {}

    def watched_environment(self, latents, timesteps):
        levels["spoken"], levels["tokens"] = timesteps, environment(self, latents, timesteps)
        return levels["tokens"]

    def watched_forward(self, latents, timesteps, context, **settings):
        levels["heard"] = timesteps
        assert settings["environment"] is levels["tokens"]
        return forward(self, latents, timesteps, context, **settings)

    monkeypatch.setattr(type(codi.diffuser), "environment", watched_environment)
    monkeypatch.setattr(type(codi.diffuser), "forward", watched_forward)
    stage(stage.batch(0, 200, 0), torch.Generator().manual_seed(0))
    spoken, heard = levels["spoken"], levels["heard"]
    assert (spoken <= heard).all()
    assert 0.4 < (spoken == heard).float().mean() < 0.6
    assert 0.4 < (spoken / heard.clamp_min(1))[spoken < heard].mean() < 0.6
    assert heard.float().mean() > 600  # noisy ones come more often


def test_the_network_teaches_itself_from_the_full_description(data, codi):
    quiet = {"contrast_weight": 0, "time_weight": 0, "gap_weight": 0}
    streams = codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio")
    stage = AlignmentStage(*streams, teach=True, **quiet)
    batch = stage.batch(0, 8, 0)
    assert stage(batch, torch.Generator().manual_seed(0))[1]["lesson"] > 1e-6
    batch["captions"] = batch["described"]
    for name, p in codi.diffuser.named_parameters():
        if "connectors." in name and "proj_out" in name:
            p.data.zero_()  # what is heard has no effect, and there is nothing to learn
    loss, figures = stage(batch, torch.Generator().manual_seed(0))
    assert figures["lesson"] == pytest.approx(0, abs=1e-9) and figures["image"] > 0.1
    assert float(loss) == pytest.approx(0, abs=1e-9)


def test_two_streams_with_time_learn_from_the_noise_too(data, codi):
    quiet = {"contrast_weight": 0, "time_weight": 0, "gap_weight": 0}
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("audio", "video"), teach=True, **quiet)
    loss, figures = stage(stage.batch(0, 4, 0), torch.Generator().manual_seed(0))
    timed = all(codi.diffuser.networks[n].config.environment_time for n in ("audio", "image"))
    noise = (figures["audio"] + figures["video"]) / 2
    expected = (noise + figures["lesson"]) / 2 if timed else figures["lesson"]
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("pairs", "network"),
    [
        ((("image", "text"),), "image"),
        ((("audio", "text"), ("audio", "video")), "audio"),
        ((("video", "audio"), ("image", "text")), "image"),
    ],
)
def test_listening(tmp_path, data, codi, pairs, network):
    stage = ListeningStage(codi.diffuser, codi.prompt_encoders["text"], data, pairs)
    connectors = {n for part in LISTENING[1:] for n in named(stage, f"diffuser.networks.{network}.{part}")}
    assert learning(stage) == connectors
    names = trained(stage, tmp_path)
    assert names <= connectors
    heard = {part for part in LISTENING[1:] if any(n.startswith(f"diffuser.networks.{network}.{part}") for n in names)}
    assert heard == {part for pair in pairs for part in at_work(pair)} - {"environment_encoder."}


def test_listeners_take_turns(data, codi):
    pairs = (("video", "audio"), ("image", "text"))
    stage = ListeningStage(codi.diffuser, codi.prompt_encoders["text"], data, pairs)
    batches = [stage.batch(step, 2, 0) for step in range(3)]
    turns = [batch.keys() & {"image", "text", "audio", "video"} for batch in batches]
    assert turns == [{"audio", "video"}, {"image", "text"}, {"audio", "video"}]
    assert [len(batch["captions"]) for batch in batches] == [2, 16, 2]  # clips cost more


def test_listeners_hear_up_to_three_voices(data, codi, monkeypatch):
    stage = ListeningStage(codi.diffuser, codi.prompt_encoders["text"], data, (("audio", "text"), ("audio", "video")))
    network, heard = type(codi.diffuser.networks["audio"]), []
    forward = network.forward

    def watched(self, x, emb, context, sources=(), gate=0.0):
        if gate:
            heard.append([tokens for tokens, weight in sources])
        return forward(self, x, emb, context, sources, gate)

    monkeypatch.setattr(network, "forward", watched)
    for step in range(0, 8, 2):
        stage(stage.batch(step, 2, 0), torch.Generator().manual_seed(0))
    assert [len(voices) for voices in heard] == [1, 2, 3, 1]
    assert not torch.equal(*heard[1])  # each through noise of its own


def test_listeners_learn_what_the_description_says(data, codi):
    stage = ListeningStage(codi.diffuser, codi.prompt_encoders["text"], data, (("image", "text"),))
    batch = stage.batch(0, 8, 0)
    loss, figures = stage(batch, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(figures["text to image"], rel=1e-5) and float(loss) > 1e-6
    batch["captions"] = batch["described"]
    for name, p in codi.diffuser.named_parameters():
        if "connectors." in name and "proj_out" in name:
            p.data.zero_()  # what is heard has no effect, and there is nothing to learn
    assert float(stage(batch, torch.Generator().manual_seed(0))[0]) == pytest.approx(0, abs=1e-9)


def test_alignment_parts(codi):
    network = codi.diffuser.networks["image"]
    parts = {id(p) for part in alignment_parts(network) for p in part.parameters()}
    assert parts == {id(p) for name, p in network.named_parameters() if name.startswith(LISTENING)}


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


def test_prompts_are_blurred(data, codi):
    stage = DiffuserStage(codi.diffuser, codi.prompt_encoders["text"], data, "image", prompt_noise=0.3)
    batch = stage.batch(0, 200, 0)
    blurred = stage.context(batch, torch.Generator().manual_seed(0))
    sharp = codi.prompt("text", batch["captions"]).embedding
    torch.testing.assert_close(blurred.norm(dim=-1), torch.ones(200, 1))
    distance = (blurred - sharp).norm(dim=-1)
    assert 0.05 < distance.mean() < 0.25 and distance.max() < 0.5


def test_alignment_says_less(data, codi):
    stages = [
        stage(codi.diffuser, codi.prompt_encoders["text"], data, streams)
        for stage, streams in ((DiffuserStage, "image"), (AlignmentStage, ("image", "audio")))
    ]
    alone, joint = (sum(map(len, stage.batch(0, 300, 0)["captions"])) for stage in stages)
    assert joint < 0.9 * alone


def test_contrast_of_what_is_said_twice():
    contrast = Contrast()
    a = F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=-1)[[0, 1, 2, 0]]
    labels = ["x", "y", "z", "x"]
    # Twins cost no more than the choice between the two.
    assert contrast(a, a, labels).item() == pytest.approx(0.5 * 0.6931, abs=0.01)
    torch.testing.assert_close(contrast(a[:3], a[:3], labels[:3]), contrast(a[:3], a[:3]))


def test_contrast():
    contrast = Contrast()
    a = F.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    matched, shuffled = contrast(a, a), contrast(a, a.roll(1, 0))
    assert matched.item() < 0.1 < 5 < shuffled.item()
    b = F.normalize(a + 0.5, dim=-1)
    torch.testing.assert_close(contrast(a, b), contrast(b, a))
    expected = F.cross_entropy(a @ a.T / 0.07, torch.arange(6))
    torch.testing.assert_close(matched, expected)


def test_alignment_sees_high_noise_more_often(data, codi):
    stage = AlignmentStage(codi.diffuser, codi.prompt_encoders["text"], data, ("image", "audio"))
    when = stage.timesteps(4000, torch.Generator().manual_seed(0))
    assert when.min() >= 0 and when.max() <= 999
    counts = torch.histc(when.float(), 4, 0, 1000) / 4000
    torch.testing.assert_close(counts, torch.tensor([1, 3, 5, 7]) / 16, atol=0.03, rtol=0)
