"""Attention among all places in all frames of a clip."""

import dataclasses

import pytest
import torch
import whole

from codi_backend.diffuser.clip_attention import ClipAttention
from codi_backend.diffuser.factory import Factory
from codi_backend.diffuser.unet import UNet

FRAMES = 5
CLIPS = torch.randn(2 * FRAMES, 32, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def attention():
    torch.manual_seed(0)
    attention = ClipAttention(32, Factory())
    torch.nn.init.normal_(attention.to_out.weight)
    return attention


@torch.no_grad()
def test_a_new_one_changes_nothing():
    assert torch.equal(ClipAttention(32, Factory())(CLIPS, FRAMES), CLIPS)


@torch.no_grad()
@pytest.mark.parametrize("place", [(0, 0, 0), (3, 2, 5)])
def test_what_happens_somewhere_is_seen_everywhere(attention, place):
    frame, row, column = place
    other = CLIPS.clone()
    other[frame, :, row, column] = -other[frame, :, row, column]
    changed = (attention(other, FRAMES) - attention(CLIPS, FRAMES)).abs().amax(1).unflatten(0, (2, FRAMES))
    assert (changed[0] > 1e-5).all()
    assert (changed[1] == 0).all(), "clips of a batch see each other"


@torch.no_grad()
@pytest.mark.parametrize("axis", ["time", "rows", "columns"])
def test_sides_are_told_apart(attention, axis):
    """The same clip backwards, or mirrored, is another thing."""

    def mirrored(h):
        if axis == "time":
            return h.unflatten(0, (2, FRAMES)).flip(1).flatten(0, 1)
        return h.flip(2 if axis == "rows" else 3)

    out = attention(CLIPS, FRAMES)
    assert not torch.allclose(mirrored(attention(mirrored(CLIPS), FRAMES)), out, atol=1e-3)


@torch.no_grad()
def test_it_is_attention_with_a_bias_by_distance(attention):
    """Against the textbook's sum, with the bias of every pair evaluated by itself."""
    frames, height, width = 2, 3, 2
    h = CLIPS[:frames, :, :height, :width]
    places = [(t, y, x) for t in range(frames) for y in range(height) for x in range(width)]
    tokens = torch.stack([h[t, :, y, x] for t, y, x in places])
    q, k, v = (t.unflatten(-1, (8, -1)) for t in attention.to_qkv(attention.norm(tokens)).chunk(3, -1))
    out = torch.zeros(len(places), 8, q.shape[-1])
    for i, here in enumerate(places):
        distance = torch.tensor([[a - b for a, b in zip(here, there)] for there in places], dtype=torch.float32)
        bias = distance.sign() * distance.abs().log1p()
        for layer in attention.bias.net:
            bias = layer(bias)
        scores = torch.einsum("hc,nhc->nh", q[i], k) / q.shape[-1] ** 0.5 + bias
        out[i] = torch.einsum("nh,nhc->hc", scores.softmax(0), v)
    expected = tokens + attention.to_out(out.flatten(1))
    got = attention(h, frames)
    torch.testing.assert_close(torch.stack([got[t, :, y, x] for t, y, x in places]), expected, atol=1e-5, rtol=1e-4)


def test_where_the_network_has_it():
    """At the marked levels and in the middle, which belongs to the coarsest; environment encoders have none."""
    config = whole.CONFIG.diffuser.networks["image"]
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
        if isinstance(module, ClipAttention):
            assert not name.startswith("environment_encoder")
            found.append(module.to_out.out_features)
    return found
