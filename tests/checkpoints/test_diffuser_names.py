"""Our full-size networks have exactly the published parameters."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from layer_classes import layers, without_weights

from codi_backend.checkpoints.diffuser_names import from_reference, to_reference
from codi_backend.config import UNetConfig
from codi_backend.models.diffuser import UNet
from codi_backend.models.diffuser.temporal import ClampedNorm
from codi_backend.models.layer_factory import LayerFactory

GOLDEN = Path(__file__).parents[1] / "golden" / "diffuser"
PUBLISHED = {
    "image": UNetConfig(in_channels=4, model_channels=320, temporal=True),
    "audio": UNetConfig(in_channels=8, model_channels=192),
    "text": UNetConfig(in_channels=768, model_channels=320, text_positions=4),
}


@pytest.fixture(scope="module")
def manifest():
    return json.loads(gzip.decompress((GOLDEN / "unet_full_shapes.json.gz").read_bytes()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes(name, manifest):
    net = UNet(PUBLISHED[name], operations=layers(lambda layer: None), device="meta")
    ours = net.state_dict()
    assert {to_reference(key): list(value.shape) for key, value in ours.items()} == manifest[name]
    assert [from_reference(to_reference(key)) for key in ours] == list(ours)
    for module in net.modules():  # a memory manager that moves leaves (ComfyUI's) then moves everything
        assert not (list(module.children()) and list(module.parameters(recurse=False)))


def test_layers_come_from_operations():
    """Nothing but the given classes, and the raw parameters that cast themselves, holds weights."""
    for config in PUBLISHED.values():
        net = UNet(config, operations=layers(without_weights), device="meta")
        for name, _ in net.named_parameters():
            assert net.get_submodule(name.rpartition(".")[0]).comfy_cast_weights, name


def test_raw_parameters_apply_pending_patches():
    """ComfyUI's on-the-fly LoRA: a patch that writes in place changes the result, never the parameter."""
    norm = ClampedNorm(4, factory=LayerFactory())
    x = torch.randn(2, 3, 5, 4)
    expected = 3 * norm(x)
    norm.weight_function = [lambda weight: weight.mul_(3)]
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm(x), expected)
    assert norm(x.half()).dtype == torch.float16
