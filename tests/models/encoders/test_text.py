"""The text prompt encoder."""

import pytest
import torch
from tiny import CONFIG

from codi_backend.config import TextEncoderConfig
from codi_backend.models.encoders import TextEncoder

START, END = 49406, 49407


@pytest.fixture(scope="module")
def encoder(codi):
    return codi.prompt_encoders["text"]


def encode(encoder, *texts):
    with torch.no_grad():
        return encoder(encoder.tokenize(texts))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("three red stars, slowly", [2097, 736, 2895, 267, 9568]),
        ("Three RED  stars, slowly ", [2097, 736, 2895, 267, 9568]),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("", []),
    ],
)
def test_tokens_are_those_of_clip(encoder, text, tokens):
    assert encoder.tokenize([text]).tolist() == [[START, *tokens, END]]


def test_shorter_texts_are_padded_with_the_end(encoder):
    tokens = encoder.tokenize(["red", "three red stars, slowly"])
    assert tokens.shape == (2, 7)
    assert tokens[0].tolist() == [START, 736, END, END, END, END, END]


def test_long_texts_are_truncated_before_the_end(encoder):
    tokens = encoder.tokenize(["red " * 200])
    assert tokens.shape == (1, 77)
    assert tokens[0, 0] == START and tokens[0, -1] == END and (tokens[0, 1:-1] == 736).all()
    assert torch.equal(encode(encoder, "red " * 200), encode(encoder, "red " * 75))
    assert not torch.allclose(encode(encoder, "red " * 75), encode(encoder, "red " * 74))


def test_embeddings_have_length_1(encoder):
    embeddings = encode(encoder, "", "red", "three red stars, slowly")
    assert embeddings.shape == (3, 1, 32)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3, 1))


def test_padding_changes_nothing(encoder):
    alone, beside = encode(encoder, "red"), encode(encoder, "red", "three red stars, slowly")
    torch.testing.assert_close(beside[:1], alone)


def test_words_and_their_order_matter(encoder):
    a, b, c = encode(encoder, "red star", "blue star", "star red")
    assert min((a - b).abs().max(), (a - c).abs().max()) > 1e-3


def test_gradients_reach_every_parameter():
    encoder = TextEncoder(CONFIG.text_encoder)
    encoder(encoder.tokenize(["three red stars, slowly"])).sum().backward()
    assert not [name for name, p in encoder.named_parameters() if not p.grad.any() and not name.endswith("k_proj.bias")]


@pytest.mark.parametrize("token_dim", [None, 8])
def test_builds_on_the_meta_device(token_dim):
    encoder = TextEncoder(TextEncoderConfig(layers=2, token_dim=token_dim), device="meta", dtype=torch.float16)
    assert all(p.is_meta and p.dtype == torch.float16 for p in encoder.parameters())
    assert encoder.token_embedding.weight.shape == (49408, token_dim or 768)


def test_layers_come_from_operations():
    class Marked(torch.nn.Linear):
        pass

    class Operations:
        Linear, Embedding, LayerNorm = Marked, torch.nn.Embedding, torch.nn.LayerNorm

    encoder = TextEncoder(CONFIG.text_encoder, operations=Operations)
    linear = [m for m in encoder.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == 8 and all(type(m) is Marked for m in linear)
