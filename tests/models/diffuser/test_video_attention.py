"""Full attention over space and time."""

import dataclasses

import pytest
import tiny
import torch

from codi_backend.models.diffuser.unet import UNet
from codi_backend.models.diffuser.video_attention import VideoAttention
from codi_backend.models.layer_factory import LayerFactory

FRAMES = 5
VIDEOS = torch.randn(2 * FRAMES, 32, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def attention():
    torch.manual_seed(0)
    attention = VideoAttention(32, LayerFactory())
    torch.nn.init.normal_(attention.to_out.weight)
    return attention


@torch.no_grad()
def test_a_new_layer_is_the_identity():
    assert torch.equal(VideoAttention(32, LayerFactory())(VIDEOS, FRAMES), VIDEOS)


@torch.no_grad()
@pytest.mark.parametrize("position", [(0, 0, 0), (3, 2, 5)])
def test_every_position_attends_to_every_other(attention, position):
    frame, row, column = position
    other = VIDEOS.clone()
    other[frame, :, row, column] = -other[frame, :, row, column]
    changed = (attention(other, FRAMES) - attention(VIDEOS, FRAMES)).abs().amax(1).unflatten(0, (2, FRAMES))
    assert (changed[0] > 1e-5).all()
    assert (changed[1] == 0).all(), "videos of a batch attend to each other"


@torch.no_grad()
@pytest.mark.parametrize("axis", ["time", "rows", "columns"])
def test_directions_differ(attention, axis):
    """A reversed or mirrored video does not give the reversed or mirrored output."""

    def mirrored(h):
        if axis == "time":
            return h.unflatten(0, (2, FRAMES)).flip(1).flatten(0, 1)
        return h.flip(2 if axis == "rows" else 3)

    out = attention(VIDEOS, FRAMES)
    assert not torch.allclose(mirrored(attention(mirrored(VIDEOS), FRAMES)), out, atol=1e-3)


@torch.no_grad()
def test_it_is_attention_with_a_bias_by_distance(attention):
    """The textbook's sum, with the bias of each pair evaluated separately."""
    frames, height, width = 2, 3, 2
    h = VIDEOS[:frames, :, :height, :width]
    positions = [(t, y, x) for t in range(frames) for y in range(height) for x in range(width)]
    tokens = torch.stack([h[t, :, y, x] for t, y, x in positions])
    q, k, v = (t.unflatten(-1, (8, -1)) for t in attention.to_qkv(attention.norm(tokens)).chunk(3, -1))
    out = torch.zeros(len(positions), 8, q.shape[-1])
    for i, here in enumerate(positions):
        distance = torch.tensor([[a - b for a, b in zip(here, there)] for there in positions], dtype=torch.float32)
        bias = distance.sign() * distance.abs().log1p()
        for layer in attention.bias.net:
            bias = layer(bias)
        scores = torch.einsum("hc,nhc->nh", q[i], k) / q.shape[-1] ** 0.5 + bias
        out[i] = torch.einsum("nh,nhc->hc", scores.softmax(0), v)
    expected = tokens + attention.to_out(out.flatten(1))
    got = attention(h, frames)
    torch.testing.assert_close(torch.stack([got[t, :, y, x] for t, y, x in positions]), expected, atol=1e-5, rtol=1e-4)


def test_levels_of_the_network():
    """The middle block belongs to the coarsest level; environment encoders have no full attention."""
    config = tiny.FOUR.diffuser.networks["image"]
    levels = {levels: _widths(dataclasses.replace(config, clip_attention=levels)) for levels in _LEVELS}
    fine, coarse = (config.model_channels * mult for mult in config.channel_mult)
    blocks = config.num_res_blocks
    assert levels[False, False] == []
    assert levels[True, False] == [fine] * (2 * blocks[0] + 1)
    assert levels[False, True] == [coarse] * (2 * blocks[1] + 3)
    assert _widths(dataclasses.replace(config, clip_attention=(True, True), temporal=False)) == []


_LEVELS = ((False, False), (True, False), (False, True))


def _widths(config):
    found = []
    for name, module in UNet(config).named_modules():
        if isinstance(module, VideoAttention):
            assert not name.startswith("environment_encoder")
            found.append(module.to_out.out_features)
    return found
