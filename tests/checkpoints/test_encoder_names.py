"""Our prompt encoders have exactly the published parameters, and read them."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from detweights import fill_
from layer_classes import layers, without_weights
from safetensors.torch import load_file

from codi_backend.checkpoints.encoder_names import from_reference, published_buffers, to_reference
from codi_backend.config import ClapConfig, TextEncoderConfig, VisionEncoderConfig
from codi_backend.config.reference import text_encoder_from_reference
from codi_backend.models.encoders import TextEncoder
from codi_backend.models.encoders.audio import AudioEncoder
from codi_backend.models.encoders.vision import ImageEncoder

GOLDEN = Path(__file__).parents[1] / "golden" / "prompts"
PUBLISHED = {
    "text": (TextEncoder, TextEncoderConfig()),
    "image": (ImageEncoder, VisionEncoderConfig()),
    "audio": (AudioEncoder, ClapConfig()),
}


def build(name, init):
    kind, config = PUBLISHED[name]
    return kind(config, operations=layers(init), device="meta")


@pytest.fixture(scope="module")
def manifest():
    return json.loads(gzip.decompress((GOLDEN / "encoder_shapes.json.gz").read_bytes()))


def test_names_and_shapes(manifest):
    published = {}
    for name, (_, config) in PUBLISHED.items():
        ours = build(name, lambda layer: None).state_dict()
        published |= {to_reference(name, key): list(value.shape) for key, value in ours.items()}
        assert [from_reference(to_reference(name, key)) for key in ours] == [(name, key) for key in ours]
        buffers = published_buffers(config, "meta")
        published |= {key: list(value.shape) for key, value in buffers.items()}
        assert {from_reference(key) for key in buffers} == {None}
    assert published == manifest


@pytest.mark.parametrize(
    "key", ["audio_branch.logmel_extractor.melW", "audio_branch.spectrogram_extractor.stft.weight"]
)
def test_what_the_original_makes_on_first_use_is_ignored(key):
    assert from_reference(f"clap.model.{key}") is None


def test_other_parts_are_not_ours():
    assert from_reference("optimus.decoder.lm_head.weight") is None
    assert from_reference("model.diffusion_model.unet_text.out.0.weight") is None


def test_factorised_tokens_have_a_name_too():
    small = TextEncoder(TextEncoderConfig(width=8, layers=1, heads=1, token_dim=2), device="meta")
    for key in small.state_dict():
        assert from_reference(to_reference("text", key)) == ("text", key)


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_come_from_operations(name):
    """Nothing but the given classes, and the raw parameters that cast themselves, holds weights."""
    encoder = build(name, without_weights)
    for key, _ in encoder.named_parameters():
        assert encoder.get_submodule(key.rpartition(".")[0]).comfy_cast_weights, key
    for module in encoder.modules():  # a memory manager that moves leaves (ComfyUI's) then moves everything
        assert not (list(module.children()) and list(module.parameters(recurse=False)))
    assert not list(encoder.buffers())


def test_text_encoder_gives_the_published_embeddings():
    case = json.loads((GOLDEN / "clip_small.json").read_text())
    expected = load_file(GOLDEN / "clip_small.safetensors")
    config = case["config"]
    encoder = TextEncoder(text_encoder_from_reference(config))
    fill_(encoder, "", lambda key: to_reference("text", key))
    tokens = encoder.tokenize(case["prompts"])
    assert torch.equal(tokens, expected["text/input_ids"])
    with torch.inference_mode():
        torch.testing.assert_close(encoder(tokens), expected["text/out"], atol=1e-5, rtol=0)
