"""The normalisation axis of temporal attention, and its table of positions."""

import dataclasses

import pytest
import tiny
import torch

from codi_backend.models.diffuser.temporal import ClampedNorm, PositionTable, TemporalAttention
from codi_backend.models.diffuser.unet import UNet
from codi_backend.models.layer_factory import LayerFactory


def attention(norm):
    torch.manual_seed(0)
    layer = TemporalAttention(32, LayerFactory(), norm)
    torch.nn.init.normal_(layer.to_out.weight)
    return layer


@torch.no_grad()
@pytest.mark.parametrize(("norm", "sensitive"), [("frames", False), ("channels", True)])
def test_effect_of_a_prompt(norm, sensitive):
    """A prompt adds the same features to all frames; normalisation over the frames removes them."""
    generator = torch.Generator().manual_seed(1)
    x, prompt = (torch.randn(2, t, 9, 32, generator=generator) for t in (4, 1))
    bias = torch.zeros(8, 4, 4)
    layer = attention(norm)
    difference = (layer(x + prompt, bias) - layer(x, bias)).abs().max()
    assert (difference > 0.1) if sensitive else (difference < 1e-4)


@torch.no_grad()
def test_channels_have_unit_variance():
    norm = ClampedNorm(32, factory=LayerFactory(), axis=-1)
    x = 5 + 3 * torch.randn(2, 4, 9, 32, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.layer_norm(x, (32,), eps=0.0)
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-4)


def test_environment_encoders_normalise_over_frames():
    config = dataclasses.replace(tiny.FOUR.diffuser.networks["image"], temporal_norm="channels")
    axes = {"environment": set(), "other": set()}
    for name, module in UNet(config).named_modules():
        if isinstance(module, TemporalAttention):
            axes["environment" if name.startswith("environment_encoder") else "other"].add(module.norm.axis)
    assert axes == {"environment": {1}, "other": {-1}}


def test_positions_beyond_the_table_are_interpolated():
    """Videos of up to 30 frames take the table's first rows; for longer ones the whole table is interpolated."""
    table = PositionTable(6, LayerFactory())
    x = torch.zeros(1)
    assert torch.equal(table.rows(30, x), table.weight) and torch.equal(table.rows(16, x), table.weight[:, :16])
    stretched = table.rows(60, x)
    assert stretched.shape == (1, 60, 6)
    middle = 0.75 * table.weight[:, 10] + 0.25 * table.weight[:, 11]  # row 21 lies at 10.25
    torch.testing.assert_close(stretched[:, 21], middle)
