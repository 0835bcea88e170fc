"""What temporal attention normalises over."""

import dataclasses

import pytest
import torch
import whole

from codi_backend.diffuser.factory import Factory
from codi_backend.diffuser.temporal import ClampedNorm, PositionTable, TemporalAttention
from codi_backend.diffuser.unet import UNet


def attention(norm):
    torch.manual_seed(0)
    layer = TemporalAttention(32, Factory(), norm)
    torch.nn.init.normal_(layer.to_out.weight)
    return layer


@torch.no_grad()
@pytest.mark.parametrize(("norm", "heeds"), [("frames", False), ("channels", True)])
def test_what_holds_for_the_whole_clip(norm, heeds):
    """A prompt adds the same to all frames."""
    generator = torch.Generator().manual_seed(1)
    x, prompt = (torch.randn(2, t, 9, 32, generator=generator) for t in (4, 1))
    bias = torch.zeros(8, 4, 4)
    layer = attention(norm)
    difference = (layer(x + prompt, bias) - layer(x, bias)).abs().max()
    assert (difference > 0.1) if heeds else (difference < 1e-4)


@torch.no_grad()
def test_channels_have_unit_variance():
    norm = ClampedNorm(32, make=Factory(), axis=-1)
    x = 5 + 3 * torch.randn(2, 4, 9, 32, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.layer_norm(x, (32,), eps=0.0)
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-4)


def test_environment_encoders_normalise_over_frames():
    config = dataclasses.replace(whole.CONFIG.diffuser.networks["image"], temporal_norm="channels")
    axes = {"environment": set(), "other": set()}
    for name, module in UNet(config).named_modules():
        if isinstance(module, TemporalAttention):
            axes["environment" if name.startswith("environment_encoder") else "other"].add(module.norm.axis)
    assert axes == {"environment": {1}, "other": {-1}}


def test_positions_beyond_the_table_are_interpolated():
    """Videos of up to 30 frames take the table's first rows; longer ones stretch the whole table."""
    table = PositionTable(6, Factory())
    x = torch.zeros(1)
    assert torch.equal(table.rows(30, x), table.weight) and torch.equal(table.rows(16, x), table.weight[:, :16])
    stretched = table.rows(60, x)
    assert stretched.shape == (1, 60, 6)
    middle = 0.75 * table.weight[:, 10] + 0.25 * table.weight[:, 11]  # row 21 lies at 10.25
    torch.testing.assert_close(stretched[:, 21], middle)
