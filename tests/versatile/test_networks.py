"""The networks that share transformers, against the original's outputs (SPEC_VD sections 2 and 3)."""

import dataclasses

import pytest
import torch
from versatile_golden import by_rule, drawn, read

from codi_backend.checkpoints import versatile as published_versatile
from codi_backend.config import CoDiConfig, DiffuserConfig, UNetConfig
from codi_backend.models.diffuser import Diffuser, draw_contexts
from codi_backend.models.diffuser.shared_attention import SharedCrossAttention

FLOWS = ["t2i", "i2i", "i2t", "t2t"]
MIXTURES = ["image_only", "text03_image07", "text1_image0", "text_and_two_images_concatenated", "unnormalised_3_7"]
DEEP = {"image": (2, 4, 16, 16), "text": (2, 768)}
FULL = {"image": (2, 4, 32, 32), "text": (2, 768)}
TOKENS = {"text": 9, "image": 17}


@pytest.fixture(scope="module")
def deep():
    meta, _ = read("unet_deep_t2i")
    return by_rule(CoDiConfig.from_reference(meta)).diffuser


def given(meta, case):
    """The contexts of a case."""
    kinds = meta.get("contexts") or [(meta["c_type"], 1.0)]
    return [
        (
            kind,
            case.get(f"in/context_{i}_{kind}", drawn(f"ctx_{kind}", 2, meta.get("context_tokens", TOKENS[kind]), 768)),
            ratio,
        )
        for i, (kind, ratio) in enumerate(kinds)
    ]


def matches(diffuser, meta, case, shapes):
    """The greatest difference. In a function of its own, so that no full-size network is kept when a test fails."""
    output = meta["x_type"]
    with torch.inference_mode():
        out = diffuser({output: drawn(f"x_{output}", *shapes[output])}, case["in/timesteps"], given(meta, case))[output]
    return (out - case["out/eps"]).abs().max()


@pytest.mark.parametrize("name", [*FLOWS, *(f"mix_{name}" for name in MIXTURES)])
def test_deep(deep, name):
    assert matches(deep, *read(f"unet_deep_{name}"), DEEP) < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "network", "kind"), [("t2i", "image", "text"), ("i2t", "text", "image")])
def test_full_size(name, network, kind):
    diffuser = published_versatile.CONFIG.diffuser.only({network}, {kind})
    assert matches(by_rule(CoDiConfig(diffuser=diffuser)).diffuser, *read(f"unet_full_{name}"), FULL) < 2e-4


def test_what_is_shared_and_what_is_not(deep):
    """Texts and images are denoised with the same transformers and time embedding; networks have neither."""
    assert not any("transformer_blocks" in key or "time_embed" in key for key in deep.networks.state_dict())
    assert {kind: len(layers) for kind, layers in deep.context_sets.items()} == {"text": 16, "image": 16}
    for network in deep.networks.values():
        numbers = [module.number for module in network.modules() if isinstance(module, SharedCrossAttention)]
        assert numbers == list(range(16))


def x_of(output, batch=2):
    return {output: drawn(f"x_{output}", batch, *DEEP[output][1:])}


def tokens(kind, count=4, batch=2):
    return drawn(f"ctx_{kind}", batch, count, 768)


@pytest.mark.parametrize("output", ["image", "text"])
def test_contexts_are_averaged_at_every_place(deep, output):
    """Two shares of one context are that context; a text output mixes as an image does, which crashed the original."""
    when, text, image = torch.tensor([981, 17]), tokens("text"), tokens("image")

    def run(contexts, **options):
        with torch.inference_mode():
            return deep(x_of(output), when, contexts, **options)[output]

    alone = run([("text", text, 1.0)])
    torch.testing.assert_close(run([("text", text, 1.0), ("text", text, 3.0)]), alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(run([("text", text, 2.0), ("image", image, 0.0)]), alone, atol=0, rtol=0)
    both = run([("text", text, 0.5), ("image", image, 0.5)])
    assert (both - alone).abs().max() > 1e-2
    torch.testing.assert_close(run([("image", image, 7.0), ("text", text, 7.0)]), both, atol=1e-5, rtol=0)


@pytest.mark.parametrize("output", ["image", "text"])
def test_one_context_may_be_drawn_for_every_place(deep, output):
    when, contexts = torch.tensor([981, 17]), [("text", tokens("text"), 0.3), ("image", tokens("image"), 0.7)]

    def run(contexts, drawn=None):
        with torch.inference_mode():
            return deep(x_of(output), when, contexts, drawn=drawn)[output]

    for number, context in enumerate(contexts):
        torch.testing.assert_close(run(contexts, [number] * 16), run([context]), atol=0, rtol=0)
    swapped = [0, 1] * 8
    assert torch.equal(run(contexts, swapped), run(contexts[::-1], [1 - number for number in swapped]))
    assert not torch.equal(run(contexts, swapped), run(contexts, [0] * 16))


def test_draws_follow_the_ratios():
    generator = torch.Generator().manual_seed(3)
    draws = torch.tensor([draw_contexts([1.0, 0.0, 3.0], 16, generator) for _ in range(500)])
    shares = torch.bincount(draws.flatten(), minlength=3) / draws.numel()
    assert shares[1] == 0 and abs(shares[0] - 0.25) < 0.02
    again = torch.Generator().manual_seed(3)
    assert draw_contexts([1.0, 0.0, 3.0], 16, again) == draws[0].tolist()


def test_one_token_is_attended_to_without_queries(deep):
    """The shortcut for one token gives what several equal tokens give."""
    one = tokens("text", 1)
    with torch.inference_mode():
        short = deep(x_of("image"), torch.tensor([500, 3]), [("text", one, 1.0)])["image"]
        long = deep(x_of("image"), torch.tensor([500, 3]), [("text", one.expand(-1, 5, -1), 1.0)])["image"]
    torch.testing.assert_close(short, long, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("contexts", "message"),
    [
        (lambda: tokens("text"), r"needs contexts with a kind \(text, image\): give \(kind, tokens, ratio\)"),
        (lambda: [("sound", tokens("text"), 1.0)], "no layers for sound contexts; choose from text, image"),
        (lambda: [("text", tokens("text")[0], 1.0)], r"text context \(number 0\) is \[4, 768\]; give tokens \[batch"),
        (lambda: [("text", tokens("text")[..., :5], 1.0)], r"give tokens \[batch, count, 768\]"),
        (lambda: [("text", tokens("text")[:, :0], 1.0)], r"is \[2, 0, 768\]; give tokens"),
        (lambda: [("image", tokens("image", batch=3), 1.0)], "Batch sizes differ .*give everything the same"),
        (lambda: [("text", tokens("text"), 0.0), ("image", tokens("image"), 0.0)], "ratios: all are 0"),
        (lambda: [("text", tokens("text"), -1.0)], "ratios: -1 is out of range"),
        (lambda: [("text", tokens("text"), float("nan"))], "ratios: nan is out of range"),
        (lambda: [], "ratios: all are 0"),
    ],
)
def test_contexts_that_do_not_fit(deep, contexts, message):
    with pytest.raises(ValueError, match=message):
        deep(x_of("image"), torch.tensor([1, 1]), contexts())


@pytest.mark.parametrize("drawn", [[0] * 15, [2] * 16, [-1] * 16])
def test_draws_that_do_not_fit(deep, drawn):
    with pytest.raises(ValueError, match="index of one of the 1 contexts, from 0 on, for each of the 16 shared"):
        deep(x_of("image"), torch.tensor([1, 1]), [("text", tokens("text"), 1.0)], drawn=drawn)


def test_sizes_that_do_not_fit(deep):
    with pytest.raises(ValueError, match="12 x 12; make both sizes multiples of 8"):
        deep({"image": torch.zeros(1, 4, 12, 12)}, torch.tensor([1]), [("text", tokens("text", batch=1), 1.0)])


def test_contexts_are_nothing_for_networks_that_share_none(codi):
    x = {"image": torch.zeros(1, 4, 8, 8)}
    with pytest.raises(ValueError, match="does not take contexts with a kind: give the prompt tokens only"):
        codi.diffuser(x, torch.tensor([1]), [("text", torch.zeros(1, 3, 32), 1.0)])


def test_networks_that_cannot_share_are_refused():
    image = UNetConfig(in_channels=4, model_channels=32, channel_mult=(1,), num_res_blocks=(1,), attention=(True,))
    image = dataclasses.replace(image, connector=(False,), num_heads=2)
    text = dataclasses.replace(image, in_channels=16, text_positions=2, channel_mult=(2,))
    with pytest.raises(ValueError, match="cannot share transformers: give them equal model_channels"):
        Diffuser(DiffuserConfig(networks={"image": image, "text": text}, contexts=("text",)))
