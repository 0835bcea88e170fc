"""What temporal attention normalises over."""

import dataclasses

import pytest
import torch
import whole

from codi_backend.diffuser.factory import Factory
from codi_backend.diffuser.temporal import ClampedNorm, TemporalAttention
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
