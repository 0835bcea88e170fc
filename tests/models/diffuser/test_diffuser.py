"""Latent alignment: which stream influences which, and how much (SPEC section 2)."""

import dataclasses

import pytest
import torch
from detweights import fill_

from codi_backend.config import DiffuserConfig
from codi_backend.models.diffuser import Diffuser
from codi_backend.models.diffuser.layers import Attention, TransformerBlock
from codi_backend.models.layer_factory import LayerFactory, attention


def run(diffuser, streams, **options):
    latents, timesteps, context = streams
    with torch.inference_mode():
        return diffuser(latents, timesteps, context, **options)


def changed(streams, name):
    latents, timesteps, context = streams
    return {**latents, name: latents[name].flip(0)}, timesteps, context


def only(streams, *names):
    latents, timesteps, context = streams
    return {name: latents[name] for name in names}, timesteps, context


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("alignment", "coupled"), [("paper", True), ("released", False), ("none", False)])
def test_streams_influence_each_other_only_in_paper(tiny, streams, alignment, coupled):
    before = run(tiny, streams, alignment=alignment)
    after = run(tiny, changed(streams, "audio"), alignment=alignment)
    for target in ("image", "text"):
        assert torch.equal(before[target], after[target]) != coupled


def test_video_and_audio_influence_each_other(tiny, streams):
    latents, timesteps, context = streams
    latents = {"video": torch.stack([latents["image"]] * 3, 2), "audio": latents["audio"]}
    before = run(tiny, (latents, timesteps, context))
    after = run(tiny, changed((latents, timesteps, context), "audio"))
    assert before["video"].shape == latents["video"].shape
    assert not torch.equal(before["video"], after["video"])


def test_batches_of_videos_are_split(variant, streams, monkeypatch):
    """On a CPU, parts of the batch are predicted one after the other."""
    latents, timesteps, context = streams
    latents = {"video": torch.stack([latents["image"].flip(0)] * 3, 2), "audio": latents["audio"]}
    inputs = {name: x.double() for name, x in latents.items()}, timesteps, context.double()
    taken, diffuser = [], variant(dtype=torch.float64)
    diffuser.networks["image"].register_forward_pre_hook(lambda _, given: taken.append(len(given[0])))
    whole = run(diffuser, inputs, modality_guidance=1.5)
    monkeypatch.setattr("codi_backend.models.diffuser.diffuser._FRAMES_AT_ONCE", 5)
    pieces = run(diffuser, inputs, modality_guidance=1.5)
    assert taken == [2, 2, 1, 1, 1, 1]
    torch.testing.assert_close(pieces, whole)


def test_image_and_video_share_a_network_but_not_an_environment(tiny, streams):
    latents, timesteps, context = streams
    latents = {"image": latents["image"], "video": torch.stack([latents["image"].flip(0)] * 2, 2)}
    out = run(tiny, (latents, timesteps, context))
    assert {name: x.shape for name, x in out.items()} == {name: x.shape for name, x in latents.items()}
    assert not torch.equal(out["image"], run(tiny, changed((latents, timesteps, context), "video"))["image"])


def test_none_equals_separate_runs(tiny, streams):
    joint = run(tiny, streams, alignment="none")
    for name in joint:
        for alignment in ("paper", "released", "none"):
            alone = run(tiny, only(streams, name), alignment=alignment)
            assert torch.equal(alone[name], joint[name])


@pytest.mark.parametrize("alignment", ["paper", "released"])
def test_strength_zero_is_none_bit_for_bit(tiny, streams, alignment):
    assert equal(run(tiny, streams, alignment=alignment, strength=0), run(tiny, streams, alignment="none"))


def test_small_strength_has_a_small_effect(tiny, streams):
    none, weak, full = (run(tiny, streams, strength=s)["image"] for s in (0.0, 1e-3, 1.0))
    assert 0 < (weak - none).abs().max() < 0.02 * (full - none).abs().max()


def test_alignment_scale_extrapolates_from_the_unaligned_prediction(tiny, streams):
    aligned, none = run(tiny, streams), run(tiny, streams, alignment="none")
    for scale in (0.0, 0.5, 1.0, 2.5):
        for name, eps in run(tiny, streams, modality_guidance=scale).items():
            torch.testing.assert_close(eps, none[name] + scale * (aligned[name] - none[name]), rtol=1e-4, atol=1e-4)
    assert equal(run(tiny, streams, modality_guidance=1.0), aligned)
    assert not any(torch.allclose(aligned[name], none[name], atol=1e-3) for name in aligned)


@pytest.mark.parametrize("options", [{"alignment": "none"}, {"alignment": "released"}, {"strength": 0.0}])
def test_alignment_scale_needs_sources(tiny, streams, options):
    assert equal(run(tiny, streams, modality_guidance=2.5, **options), run(tiny, streams, **options))


def test_alignment_scale_changes_targets_only(tiny, streams):
    pair = only(streams, "image", "audio")
    plain, scaled = (
        run(tiny, pair, strength={("audio", "image"): 0.0}, modality_guidance=scale) for scale in (1.0, 2.5)
    )
    assert torch.equal(plain["audio"], scaled["audio"]) and not torch.equal(plain["image"], scaled["image"])


def test_one_direction(tiny, streams):
    pair = only(streams, "image", "audio")
    out = run(tiny, pair, strength={("audio", "image"): 0.0})
    assert torch.equal(out["audio"], run(tiny, pair, alignment="none")["audio"])
    assert torch.equal(out["image"], run(tiny, pair)["image"])


def test_pair_strength_excludes_a_source(tiny, streams):
    """An image that attends to audio but not to text equals the image of a run without text."""
    out = run(tiny, streams, strength={("image", "text"): 0.0})
    assert torch.equal(out["image"], run(tiny, only(streams, "image", "audio"))["image"])


def test_contributions_of_sources_are_added(tiny, streams):
    latents, timesteps, context = streams
    network = tiny.networks["image"]
    with torch.inference_mode():
        emb = network.time_embed(timesteps, torch.float32)
        environment = tiny.environment(latents, timesteps)
        sources = [(environment[name], 1.0) for name in ("text", "audio")]
        added, averaged = (
            network(latents["image"], emb, context, [(tokens, scale * w) for tokens, w in sources], 1.0)
            for scale in (1.0, 0.5)
        )
    image = run(tiny, streams)["image"]
    assert torch.equal(image, added) and not torch.equal(image, averaged)


def test_given_environment_is_used(tiny, streams):
    latents, timesteps, _ = streams
    with torch.inference_mode():
        environment = tiny.environment(latents, timesteps)
    assert all(torch.allclose(e.norm(dim=-1), torch.ones(e.shape[0])) for e in environment.values())
    assert equal(run(tiny, streams, environment=environment), run(tiny, streams))
    other = {name: e.flip(0) for name, e in environment.items()}
    assert not equal(run(tiny, streams, environment=other), run(tiny, streams))


def test_each_environment_is_computed_once(tiny, streams):
    calls = []
    hooks = [
        net.environment_encoder.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, net in tiny.networks.items()
    ]
    run(tiny, streams)
    assert sorted(calls) == sorted(streams[0])
    calls.clear()
    run(tiny, streams, alignment="none")
    assert calls == []
    for hook in hooks:
        hook.remove()


def test_one_token_shortcut_equals_attention():
    layer = fill_(Attention(32, 16, 4, LayerFactory()))
    x, token = torch.randn(2, 5, 32), torch.randn(2, 1, 16)
    torch.testing.assert_close(layer.single(token).expand(2, 5, 32), layer(x, token))


def test_several_tokens_of_one_source():
    """Repeating a token does not change the output; different tokens are weighted by the query."""
    block = fill_(TransformerBlock(32, 16, 4, LayerFactory()))
    x, token = torch.randn(4, 5, 32), torch.randn(2, 1, 16)
    torch.testing.assert_close(block(x, [(token.repeat(1, 3, 1), 1.0)]), block(x, [(token, 1.0)]))
    assert block(x, [(torch.randn(2, 3, 16), 1.0)]).shape == x.shape


def test_longer_prompts(tiny, streams):
    latents, timesteps, context = streams
    short = run(tiny, (latents, timesteps, context))
    repeated = run(tiny, (latents, timesteps, context.repeat(1, 3, 1)))
    for name in short:
        torch.testing.assert_close(short[name], repeated[name], atol=1e-4, rtol=0)


def test_attention_can_be_replaced(variant, streams):
    calls = []

    def counted(q, k, v, heads):
        calls.append(heads)
        return attention(q, k, v, heads)

    assert equal(run(variant(attention=counted), streams), run(variant(), streams))
    assert set(calls) == {4}


def test_gradients_reach_connectors_and_environment_encoders(variant, streams):
    diffuser = variant()
    out = diffuser(*streams, strength=0.5)
    sum(x.square().mean() for x in out.values()).backward()
    unused = ("temporal", "frameshift", ".0.1.ff.")  # there is no video here
    unused += (".attn2.to_q.", ".attn2.to_k.", ".norm2.")  # a single token does not depend on them
    seen = 0
    for name, parameter in diffuser.named_parameters():
        relevant = "connectors" in name or "environment_encoder" in name
        if relevant and not any(part in name for part in unused):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
            seen += 1
    assert seen > 100


def test_gradients_reach_temporal_layers(variant, streams):
    latents, timesteps, context = streams
    diffuser = variant()
    pair = {"video": torch.randn(2, 4, 9, 4, 4), "audio": latents["audio"]}
    out = diffuser(pair, timesteps, context)
    (out["video"].square().mean() + out["audio"].square().mean()).backward()
    for name, parameter in diffuser.networks["image"].named_parameters():
        if ".0.1." in name and "transformer_blocks" not in name:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_new_connectors_are_the_identity(tiny_config, streams):
    """Alignment training starts from the predictions of the separate networks."""
    torch.manual_seed(0)
    diffuser = Diffuser(tiny_config)
    out = run(diffuser, streams)
    assert all(x.isfinite().all() and x.any() for x in out.values())
    assert equal(out, run(diffuser, streams, alignment="none"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("visual", ["image", "video"])
def test_half_precision(variant, tiny, streams, dtype, visual):
    latents, timesteps, context = streams
    latents = dict(latents)
    if visual == "video":
        still = latents.pop("image")
        latents["video"] = torch.stack([still, still.flip(-1), still.flip(-2), still.flip(0)], 2)
    exact = run(tiny, (latents, timesteps, context))
    half = {name: x.to(dtype) for name, x in latents.items()}
    out = run(variant(dtype=dtype), (half, timesteps, context.to(dtype)))
    for name, x in out.items():
        assert x.dtype == dtype and x.isfinite().all()
        assert (x.float() - exact[name]).abs().mean() < 0.1


def test_fractional_timesteps(tiny, streams):
    latents, timesteps, context = streams
    whole = run(tiny, streams)
    assert equal(whole, run(tiny, (latents, timesteps.float(), context)))
    assert not equal(whole, run(tiny, (latents, timesteps + 0.5, context)))


def test_errors(tiny, tiny_config, streams):
    latents, timesteps, context = streams
    image, audio = latents["image"], latents["audio"]

    def fails(message, latents=latents, timesteps=timesteps, context=context, model=tiny, **options):
        with pytest.raises(ValueError, match=message):
            model(latents, timesteps, context, **options)

    still = Diffuser(DiffuserConfig({"image": dataclasses.replace(tiny_config.networks["image"], temporal=False)}))
    fails("no audio network", {"audio": audio}, model=still)
    fails("no temporal layers", {"video": image[:, :, None]}, model=still)
    fails("nothing to denoise", {})
    fails("no modality 'smell'", {"smell": image})
    fails("no alignment 'loud'", alignment="loud")
    fails("strength names sound", strength={("image", "sound"): 1.0})
    fails("strength: -1 is out of range; choose a number from 0 to 100", strength=-1.0)
    fails("modality_guidance: nan is out of range", modality_guidance=float("nan"))
    fails("Batch sizes differ", {"image": image[:1], "audio": audio})
    fails("Batch sizes differ", timesteps=timesteps[:1])
    fails("Batch sizes differ", context=context[:1])
    fails("give tokens", context=context[..., :5])
    fails("multiples of 2", {"image": image[..., :7]})
    fails("121 frames", {"video": torch.zeros(2, 4, 121, 4, 4)})
    fails("4 axes", {"image": image[:, :, None]})
    fails("8 channels", {"audio": image})


def test_streams_that_are_only_sources_are_not_predicted(tiny, streams):
    everything = run(tiny, streams)
    name = next(iter(everything))
    some = run(tiny, streams, predict=[name])
    assert list(some) == [name] and torch.equal(some[name], everything[name])
