"""Temporal attention over environment tokens, before the connectors attend to them."""

import dataclasses

import pytest
import tiny
import torch

from codi_backend.models.diffuser.temporal_connector import TemporalConnector
from codi_backend.models.diffuser.unet import UNet
from codi_backend.models.layer_factory import LayerFactory

TOKENS = torch.nn.functional.normalize(torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def connector():
    torch.manual_seed(0)
    connector = TemporalConnector(32, LayerFactory())
    for p in (connector.attn.to_out.weight, *connector.ff.net[-1].parameters()):
        torch.nn.init.normal_(p, std=0.1)
    return connector


@torch.no_grad()
def test_a_new_connector_is_the_identity():
    assert torch.equal(TemporalConnector(32, LayerFactory())(TOKENS), TOKENS)


@torch.no_grad()
def test_every_time_step_attends_to_every_other(connector):
    """The output depends on distance and direction: reversed tokens do not give the reversed output."""
    out = connector(TOKENS)
    for step in range(12):
        other = TOKENS.clone()
        other[:, step] = -other[:, step]
        assert ((connector(other) - out).abs().amax((0, 2)) > 1e-5).all()
    assert not torch.allclose(connector(TOKENS.flip(1)).flip(1), out, atol=1e-3)


@pytest.fixture(scope="module")
def networks():
    """Networks by name; new connectors would have no effect."""
    networks = tiny.build(tiny.FOUR).diffuser.networks
    for name in ("image", "audio"):
        (connector,) = networks[name].temporal_connectors
        torch.nn.init.normal_(connector.attn.to_out.weight)
    return networks


X = {"video": torch.zeros(2 * 4, 4, 8, 8), "image": torch.zeros(2, 4, 8, 8), "audio": torch.zeros(2, 8, 8, 8)}


@torch.no_grad()
@pytest.mark.parametrize(("stream", "frames", "steps"), [("video", 4, 4), ("audio", None, 8)])
def test_targets_with_time(networks, stream, frames, steps):
    """A target with fewer steps gets means, so that longer sources fit the tables of positions."""
    network = networks["image" if stream == "video" else stream]
    long = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(1))
    assert network._apply_temporal_connectors(long, X[stream], frames).shape == (2, steps, 32)
    short = long[:, :3]
    changed = network._apply_temporal_connectors(short, X[stream], frames)
    assert changed.shape == short.shape and not torch.allclose(changed, short, atol=1e-3)


@torch.no_grad()
def test_tokens_without_time_are_unchanged(networks):
    """The target has no time axis (image, text), or the source has one token."""
    assert networks["text"]._apply_temporal_connectors(TOKENS, torch.zeros(2, 16), None) is TOKENS
    assert networks["image"]._apply_temporal_connectors(TOKENS, X["image"], None) is TOKENS
    one = TOKENS[:, :1]
    assert networks["audio"]._apply_temporal_connectors(one, X["audio"], None) is one


@torch.no_grad()
def test_the_network_applies_them_before_its_connectors(networks):
    network = networks["audio"]
    when = network.time_embed(torch.tensor([300, 700]), torch.float32)
    context = torch.nn.functional.normalize(torch.ones(2, 1, 32), dim=-1)
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(2))
    without = UNet(dataclasses.replace(network.config, temporal_connectors=0))
    without.load_state_dict({k: v for k, v in network.state_dict().items() if "temporal_connectors" not in k})
    sources = [(TOKENS, 1.0)]
    assert torch.equal(network(x, when, context, sources, 0.0), without(x, when, context, sources, 0.0))
    assert not torch.allclose(
        network(x, when, context, sources, 1.0), without(x, when, context, sources, 1.0), atol=1e-4
    )
