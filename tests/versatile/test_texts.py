"""The text autoencoder as Versatile Diffusion uses it, against the original's outputs (SPEC_VD section 6)."""

import dataclasses
import json

import pytest
import torch
from published import filled, released_loop, write_vocabularies
from versatile_golden import GOLDEN, read

from codi_backend.checkpoints import versatile as published_versatile
from codi_backend.config import TransformerConfig
from codi_backend.models.autoencoders import TextAutoencoder
from codi_backend.models.autoencoders.text_cleanup import drop_repeats
from codi_backend.models.autoencoders.token_sampling import TokenSampling

META, CASE = read("optimus_encode_decode_small")
REPEATS = json.loads((GOLDEN / "text_postprocess_vd.json").read_text())
CONFIG = dataclasses.replace(
    published_versatile.CONFIG.text_autoencoder,
    encoder=TransformerConfig(28996, 512, 16, 32, 2, 2),
    decoder=TransformerConfig(50260, 64, 16, 64, 3, 2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Vocabularies with the words of the golden texts."""
    sentences = [text.replace(".", " .").split() for text in META["texts"]]
    words = {i: w for row, ids in zip(sentences, CASE["in/token_ids"].tolist()) for w, i in zip(row, ids[1:-1])}
    pieces = {int(i): piece for i, piece in META["gpt2_pieces"].items()}
    return write_vocabularies(tmp_path_factory.mktemp("vocabulary"), words, pieces)


@pytest.fixture(scope="module")
def optimus(folder):
    return filled(TextAutoencoder(CONFIG, vocabulary=folder), "vae.text.")


def test_encode(optimus):
    """Long texts are cut to 77 word pieces and keep their end; latents are in the diffuser's units as they are."""
    assert torch.equal(optimus.vocabulary.tokenize(META["texts"]), CASE["in/token_ids"])
    with torch.inference_mode():
        torch.testing.assert_close(optimus.encode(META["texts"]), CASE["out/mean"], atol=1e-4, rtol=0)
    assert CONFIG.scale_factor == 1


def test_decode(optimus):
    generator = torch.Generator().manual_seed(7)
    ids = [released_loop(optimus, z, TokenSampling(), generator) for z in CASE["in/z"].split(1)]
    texts = [drop_repeats(optimus.vocabulary.text(row), CONFIG.drop_words) for row in ids]
    assert texts == META["decoded_seed7"]
    assert optimus.decode(CASE["in/z"][:1], seed=7) == texts[:1]


@pytest.mark.parametrize("text", REPEATS)
def test_repeats(text):
    assert drop_repeats(text, words_first=CONFIG.drop_words) == REPEATS[text]
