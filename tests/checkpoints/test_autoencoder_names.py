"""Our full-size autoencoders have exactly the published parameters."""

import gzip
import json

import pytest
import torch
from published import GOLDEN, filled

from codi_backend.checkpoints.autoencoder_names import from_reference, to_reference
from codi_backend.config import (
    AudioAutoencoderConfig,
    ImageAutoencoderConfig,
    TextAutoencoderConfig,
    TransformerConfig,
    VocoderConfig,
)
from codi_backend.models.autoencoders import AudioAutoencoder, ImageAutoencoder, TextAutoencoder

PUBLISHED = {
    "autokl": (ImageAutoencoder, ImageAutoencoderConfig()),
    "audioldm": (AudioAutoencoder, AudioAutoencoderConfig(vocoder=VocoderConfig())),
    "optimus": (TextAutoencoder, TextAutoencoderConfig()),
}
TINY = {
    "autokl": (ImageAutoencoder, ImageAutoencoderConfig(channels=(8, 16), norm_groups=8)),
    "audioldm": (
        AudioAutoencoder,
        AudioAutoencoderConfig(channels=(8, 8, 16), norm_groups=8, vocoder=VocoderConfig(channels=32)),
    ),
    "optimus": (
        TextAutoencoder,
        TextAutoencoderConfig(
            latent_dim=6, encoder=TransformerConfig(9, 8, 4, 6, 2, 2), decoder=TransformerConfig(12, 8, 4, 16, 3, 2)
        ),
    ),
}


@pytest.fixture(scope="module")
def manifest():
    return json.loads(gzip.decompress((GOLDEN / "full_shapes.json.gz").read_bytes()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes(name, manifest):
    cls, config = PUBLISHED[name]
    with torch.device("meta"):
        ours = cls(config).state_dict()
    published = to_reference(config, ours)
    expected = {key: shape for key, shape in manifest[name].items() if not key.startswith("fn_STFT.")}
    assert {key: list(value.shape) for key, value in published.items()} == expected
    back = from_reference(config, published)
    assert {key: value.shape for key, value in back.items()} == {key: value.shape for key, value in ours.items()}


@pytest.mark.parametrize("name", TINY)
def test_back_and_forth(name):
    cls, config = TINY[name]
    autoencoder = filled(cls(config), f"{name}.")
    ours = autoencoder.state_dict()
    back = from_reference(config, to_reference(config, ours))
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], ours[key]) for key in ours)


def test_levels_of_the_decoder_are_counted_from_the_other_end():
    config = ImageAutoencoderConfig()
    key = {"decoder.up.0.block.2.conv1.weight": torch.zeros(1)}
    assert list(from_reference(config, key)) == ["vae.decoder.up_blocks.3.resnets.2.conv1.weight"]


def test_constants_are_left_out_and_unknown_names_kept():
    config = PUBLISHED["audioldm"][1]
    state = {"fn_STFT.mel_basis": torch.zeros(64, 513), "vocoder.conv_pre.bias": torch.zeros(4), "ema": torch.zeros(1)}
    assert set(from_reference(config, state)) == {"vocoder.conv_pre.bias", "vae.ema"}


def test_either_copy_of_the_tied_embedding_will_do():
    cls, config = TINY["optimus"]
    published = to_reference(config, filled(cls(config), "optimus.").state_dict())
    expected = published.pop("decoder.transformer.wte.weight")
    assert torch.equal(from_reference(config, published)["decoder.token_embedding.weight"], expected)


@pytest.mark.parametrize("name", ["audioldm", "optimus"])
def test_parameters_are_in_layers(name):
    """A memory manager that moves leaves (ComfyUI's) then moves everything."""
    cls, config = TINY[name]
    for module in cls(config).modules():
        assert not (list(module.children()) and list(module.parameters(recurse=False)))
