"""What environment tokens learn of each other before connectors hear them."""

import dataclasses

import pytest
import torch
import whole

from codi_backend.diffuser.factory import Factory
from codi_backend.diffuser.temporal_connector import TemporalConnector
from codi_backend.diffuser.unet import UNet

TOKENS = torch.nn.functional.normalize(torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def connector():
    torch.manual_seed(0)
    connector = TemporalConnector(32, Factory())
    for p in (connector.attn.to_out.weight, *connector.ff.net[-1].parameters()):
        torch.nn.init.normal_(p, std=0.1)
    return connector


@torch.no_grad()
def test_a_new_one_changes_nothing():
    assert torch.equal(TemporalConnector(32, Factory())(TOKENS), TOKENS)


@torch.no_grad()
def test_every_moment_hears_of_every_other(connector):
    """And how far away it is, and on which side: the same moment earlier or later is another thing."""
    out = connector(TOKENS)
    for step in range(12):
        other = TOKENS.clone()
        other[:, step] = -other[:, step]
        assert ((connector(other) - out).abs().amax((0, 2)) > 1e-5).all()
    assert not torch.allclose(connector(TOKENS.flip(1)).flip(1), out, atol=1e-3)


@pytest.fixture(scope="module")
def networks():
    """By name; with new connectors nothing would be heard."""
    networks = whole.build_whole().diffuser.networks
    for name in ("image", "audio"):
        (connector,) = networks[name].temporal_connectors
        torch.nn.init.normal_(connector.attn.to_out.weight)
    return networks


X = {"video": torch.zeros(2 * 4, 4, 8, 8), "image": torch.zeros(2, 4, 8, 8), "audio": torch.zeros(2, 8, 8, 8)}


@torch.no_grad()
@pytest.mark.parametrize(("stream", "frames", "steps"), [("video", 4, 4), ("audio", None, 8)])
def test_listeners_with_time(networks, stream, frames, steps):
    """A listener of fewer steps hears means, so that longer speakers fit the tables of positions."""
    network = networks["image" if stream == "video" else stream]
    long = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(1))
    assert network._over_time(long, X[stream], frames).shape == (2, steps, 32)
    short = long[:, :3]
    changed = network._over_time(short, X[stream], frames)
    assert changed.shape == short.shape and not torch.allclose(changed, short, atol=1e-3)


@torch.no_grad()
def test_what_has_no_time_is_heard_as_it_is(networks):
    """Neither a picture nor a text hears moments, and one token tells of none."""
    assert networks["text"]._over_time(TOKENS, torch.zeros(2, 16), None) is TOKENS
    assert networks["image"]._over_time(TOKENS, X["image"], None) is TOKENS
    one = TOKENS[:, :1]
    assert networks["audio"]._over_time(one, X["audio"], None) is one


@torch.no_grad()
def test_they_are_part_of_what_a_stream_hears(networks):
    network = networks["audio"]
    when = network.time_embed(torch.tensor([300, 700]), torch.float32)
    context = torch.nn.functional.normalize(torch.ones(2, 1, 32), dim=-1)
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(2))
    without = UNet(dataclasses.replace(network.config, temporal_connectors=0))
    without.load_state_dict({k: v for k, v in network.state_dict().items() if "temporal_connectors" not in k})
    heard = [(TOKENS, 1.0)]
    assert torch.equal(network(x, when, context, heard, 0.0), without(x, when, context, heard, 0.0))
    assert not torch.allclose(network(x, when, context, heard, 1.0), without(x, when, context, heard, 1.0), atol=1e-4)
