"""Contexts of all tokens of texts and images, against the original's outputs (SPEC_VD section 4)."""

import dataclasses

import pytest
import torch
from detweights import fill_
from versatile_golden import read

from codi_backend.checkpoints.encoder_names import to_reference
from codi_backend.conditioning.encode import image_context, text_context
from codi_backend.config import CoDiConfig, TextEncoderConfig
from codi_backend.config.reference import text_encoder_from_reference, vision_encoder_from_reference
from codi_backend.models.encoders import ImageEncoder, TextEncoder

META, CASE = read("clip_image_small")


def named(kind):
    return lambda key: f"ctx.{kind}.{to_reference(kind, key).removeprefix('clip.')}"


@pytest.fixture(scope="module")
def image_encoder():
    config = dataclasses.replace(vision_encoder_from_reference(META["clip"]), temporal=False)
    return fill_(ImageEncoder(config), name=named("image"))


def encoded(encoder, *arguments, **options):
    return image_context(encoder.all_tokens, encoder.config.image_size, *arguments, **options)


def pixels(name):
    return CASE[f"in/image_{name}_uint8"].permute(2, 0, 1)[None] / 255


def cut(height, width, top, bottom, left, right):
    """A mask that hides a rectangle."""
    mask = torch.ones(1, 1, height, width)
    mask[..., top:bottom, left:right] = 0
    return mask


MASKS = {
    "half224": cut(224, 224, 0, 224, 0, 112),
    "rect512": cut(512, 512, 102, 307, 128, 387),
    "grad300": torch.linspace(-0.2, 1.3, 260).expand(1, 1, 300, 260),
    "rect100": cut(100, 100, 20, 60, 25, 78),
    "zero": torch.zeros(1, 1, 60, 60),
}


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def context_of(encoder, *content, **options):
    return image_context(encoder.all_tokens, encoder.config.image_size, *content, **options)


@pytest.fixture(scope="module", autouse=True)
def inference():
    with torch.inference_mode():
        yield


def test_texts():
    meta, case = read("clip_text_small")
    encoder = fill_(TextEncoder(text_encoder_from_reference(meta["clip"])), name=named("text"))
    assert torch.equal(encoder.tokenize(meta["texts"], fill=True), case["in/input_ids"])
    context = text_context(lambda texts: encoder.all_tokens(encoder.tokenize(texts, fill=True)), meta["texts"])
    close(context.tokens, case["out/text"])
    close(context.unconditional, case["out/text"][:1].expand_as(context.tokens))
    # What a prompt is, CoDi's one token, is among them: at the end of the text.
    prompts = encoder(encoder.tokenize(meta["texts"]))[:, 0]
    last = (case["in/input_ids"] == 49407).int().argmax(1)
    close(context.tokens[torch.arange(4), last], prompts)


@pytest.mark.slow
def test_texts_at_full_size():
    _, case = read("clip_text_full")
    with torch.device("meta"):
        encoder = TextEncoder(TextEncoderConfig())
    fill_(encoder.to_empty(device="cpu"), name=named("text"))
    close(encoder.all_tokens(case["in/input_ids"])[:, ::5], case["out/text_every_5th"])


def test_images(image_encoder):
    context = context_of(image_encoder, pixels("a"))
    close(context.tokens, CASE["out/a"])
    assert not context.without("image").any()
    close(context.without("text"), CASE["out/black_image_uncond"])
    close(context_of(image_encoder, pixels("b")).tokens, CASE["out/b_nonsquare"])


def test_one_colour_to_lead_away_from(image_encoder):
    context = context_of(image_encoder, pixels("a"), unconditional="black")
    close(context.without("image"), CASE["out/black_image_uncond"])
    grey = context_of(image_encoder, pixels("a"), unconditional="grey").without("text")
    close(grey, context_of(image_encoder, torch.full((1, 3, 512, 512), 127 / 255)).tokens)
    assert not context_of(image_encoder, pixels("a"), unconditional="zeros").without("text").any()


@pytest.mark.parametrize("name", MASKS)
def test_masks(image_encoder, name):
    close(context_of(image_encoder, pixels("a"), MASKS[name]).tokens, CASE[f"out/a_mask_{name}"])


def test_a_mask_for_each_of_a_batch(image_encoder):
    batch = torch.cat([pixels("a"), pixels("a").flip(3)])
    masks = torch.cat([MASKS["half224"], cut(224, 224, 44, 134, 56, 171)])
    expected = CASE["out/batch2_masks_half_rect__second_image_is_a_flipped"]
    close(context_of(image_encoder, batch, masks).tokens, expected)
    alone = context_of(image_encoder, batch, masks[:1]).tokens
    close(alone[0], expected[0])


def test_a_mask_of_ones_hides_nothing(image_encoder):
    close(context_of(image_encoder, pixels("b"), torch.ones(1, 1, 7, 9)).tokens, CASE["out/b_nonsquare"])


def test_a_mask_lies_over_the_whole_image(image_encoder):
    """Of a wide image CLIP sees the middle; what a mask hides at its edges was not seen anyway."""
    edges = cut(96, 160, 0, 96, 0, 30) * cut(96, 160, 0, 96, 130, 160)
    close(context_of(image_encoder, pixels("b"), edges).tokens, CASE["out/b_nonsquare"])


def test_focus_and_weight(image_encoder):
    """Weight scales all tokens; focus changes all but the first, and nothing at one half."""
    plain = CASE["out/a"]
    close(context_of(image_encoder, pixels("a"), weight=0.86).tokens, 0.86 * plain)
    moved = context_of(image_encoder, pixels("a"), focus=0.2).tokens
    close(moved[:, 0], plain[:, 0])
    assert (moved[:, 1:] - plain[:, 1:]).abs().max() > 0.01
    close(context_of(image_encoder, pixels("a"), weight=2.0, focus=0.2).tokens, 2 * moved)


def test_focus_of_a_hidden_image_stays_nothing(image_encoder):
    """Which gave NaN in the original."""
    for level in (0.2, 0.8):
        assert not context_of(image_encoder, pixels("a"), MASKS["zero"], focus=level).tokens.any()


def test_an_error_with_a_mask_leaves_the_encoder_as_it_was(image_encoder):
    """The original kept its patched embedding when encoding with a mask failed."""
    with pytest.raises(ValueError, match="not finite"):
        context_of(image_encoder, pixels("a") * float("nan"), MASKS["half224"])
    close(context_of(image_encoder, pixels("a")).tokens, CASE["out/a"])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (torch.rand(1, 1, 64, 64), {}, r"takes images \[B, 3, H, W\] in 0..1, not \[1, 1, 64, 64\]"),
        (torch.rand(1, 4, 64, 64), {}, r"not \[1, 4, 64, 64\]"),
        (torch.rand(3, 64, 64), {}, r"not \[3, 64, 64\]"),
        ("an image", {}, "is a str: give a tensor"),
        (torch.rand(0, 3, 64, 64), {}, "pixels of a prompt are empty"),
        (torch.rand(2, 3, 64, 64), {"mask": torch.ones(3, 1, 8, 8)}, r"mask is \[3, 1, 8, 8\]: give one of \[2, 1"),
        (torch.rand(2, 3, 64, 64), {"mask": torch.ones(8, 8)}, r"mask is \[8, 8\]: give one of"),
        (torch.rand(1, 3, 64, 64), {"mask": torch.ones(1, 3, 8, 8)}, r"mask is \[1, 3, 8, 8\]"),
        (torch.rand(1, 3, 64, 64), {"mask": "none"}, "mask is a str"),
        (
            torch.rand(1, 3, 64, 64),
            {"mask": torch.full((1, 1, 8, 8), float("nan"))},
            "mask holds values that are not finite",
        ),
        (torch.rand(1, 3, 64, 64), {"mask": torch.ones(1, 1, 0, 8)}, r"mask is \[1, 1, 0, 8\]"),
        (torch.rand(1, 3, 64, 64), {"weight": float("inf")}, "weight: inf is out of range"),
        (torch.rand(1, 3, 64, 64), {"focus": 1.5}, "focus: 1.5 is out of range"),
        (torch.rand(1, 3, 64, 64), {"unconditional": "red"}, "no unconditional 'red'; choose from zeros, black, grey"),
    ],
)
def test_what_cannot_be_encoded(image_encoder, content, options, message):
    with pytest.raises(ValueError, match=message):
        context_of(image_encoder, content, **options)


def test_other_configurations_are_read():
    config = CoDiConfig.from_reference(read("e2e_t2i")[0])
    assert config.image_encoder.temporal is False and config.text_encoder.width == 64
    assert config.image_autoencoder.image_size == 64 and config.text_autoencoder is None
    assert config.diffuser.contexts == ("text", "image")
