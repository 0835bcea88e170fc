"""The spatio-temporal block that follows every residual block of the video network (SPEC section 2.2).

Features keep the frames in the batch axis, ``[B * T, C, H, W]``, so that everything two-dimensional needs no reshaping.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .clip_attention import ClipAttention
from .factory import Factory
from .layers import ResBlock
from .temporal_position import HEADS, RelativePositionBias

_SHIFTS = 8
_POSITIONS = 30  # rows of the published tables
_NORM_AXES = {"frames": 1, "channels": -1}
_FRAME_RATE = 3  # The released code always passes frame rate 4, whose row is the fourth.


class RawParameter(nn.Module):
    """A parameter that no ready-made layer holds, as a leaf module.

    ComfyUI's memory manager moves leaves, and leaves a module marked `comfy_cast_weights` where it is when memory is
    short: that module then brings its weight to the input at each use and applies `weight_function` (pending LoRA
    patches), which `cast` does. It reads the attribute `bias` of such modules too.
    """

    comfy_cast_weights = True
    weight_function: tuple | list = ()
    bias = None

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(value)

    def cast(self, x: Tensor) -> Tensor:
        """Return the parameter on the device and in the dtype of `x`."""
        # A patch may write to what it is given, and must not write to the parameter.
        weight = self.weight.to(x, copy=len(self.weight_function) > 0)
        for function in self.weight_function:
            weight = function(weight)
        return weight


class PositionTable(RawParameter):
    """A learned row per frame or per frame rate, ``[1, 30, C]``."""

    def __init__(self, channels: int, make: Factory) -> None:
        table = 0.02 * torch.randn(1, _POSITIONS, channels, device=make.device)
        super().__init__(table.to(make.dtype or table.dtype))  # nothing can be drawn in 8 bits

    def rows(self, frames: int, x: Tensor) -> Tensor:
        """Positions of so many frames, ``[1, T, C]``. Beyond its rows the table is interpolated, as in ViTs."""
        table = self.cast(x)
        if frames <= _POSITIONS:
            return table[:, :frames]
        return F.interpolate(table.transpose(1, 2), frames, mode="linear").transpose(1, 2)


class ClampedNorm(RawParameter):
    """Normalisation over an axis that clamps the variance to eps (instead of adding eps), with a gain and no bias.

    Half precision needs a larger eps, as in the original (SPEC section 2.2).
    """

    def __init__(self, *shape: int, make: Factory, axis: int = 1) -> None:
        super().__init__(torch.ones(shape, dtype=make.dtype, device=make.device))
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        eps = 1e-3 if x.dtype in (torch.float16, torch.bfloat16) else 1e-5
        x = x - x.mean(self.axis, keepdim=True)
        variance = x.square().mean(self.axis, keepdim=True)  # torch.var_mean takes several times as long on a CPU
        return x * variance.clamp_min(eps).rsqrt() * self.cast(x)


def delay(x: Tensor, frames: int) -> Tensor:
    """Delay ``[B, T, ...]`` along T; the first frames become zero."""
    frames = min(frames, x.shape[1])
    return torch.cat([torch.zeros_like(x[:, :frames]), x[:, : x.shape[1] - frames]], 1)


class TemporalAttention(nn.Module):
    """Attention among the frames of each pixel: ``x [B, T, P, C]``, ``bias [heads, T, T]`` -> ``[B, T, P, C]``.

    Its normalisation runs over the frames, or over the channels: see `UNetConfig.temporal_norm`.
    """

    def __init__(self, channels: int, make: Factory, norm: str) -> None:
        super().__init__()
        inner = HEADS * (channels // 4)
        self.pos_embeds = PositionTable(channels, make)
        self.frame_rate_embeds = PositionTable(channels, make)
        self.norm = ClampedNorm(channels, make=make, axis=_NORM_AXES[norm])
        self.to_q = make.linear(channels, inner, bias=False)
        self.to_kv = make.linear(channels, 2 * inner, bias=False)
        self.to_out = make.zeroed(make.linear(inner, channels, bias=False))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, frames, pixels, _ = x.shape
        table = self.pos_embeds.rows(frames, x) + self.frame_rate_embeds.cast(x)[:, _FRAME_RATE, None]
        tokens = self.norm(x + table[:, :, None]).transpose(1, 2).flatten(0, 1)
        q, k, v = (
            t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (self.to_q(tokens), *self.to_kv(tokens).chunk(2, -1))
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).flatten(2)
        return self.to_out(out).unflatten(0, (batch, pixels)).transpose(1, 2)


class TemporalFeedForward(nn.Module):
    """A gated layer in whose middle half of the channels are one frame late: ``[B * T, C, H, W]`` -> same."""

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        inner = int(channels * 4 * 2 / 3)
        self.proj_in = nn.Sequential(make.pointwise3d(channels, 2 * inner))
        self.proj_out = nn.Sequential(ClampedNorm(inner, 1, 1, 1, make=make), make.pointwise3d(inner, channels))

    def forward(self, h: Tensor, frames: int) -> Tensor:
        norm, project = self.proj_out
        # In single precision throughout the gate and the norm, as in the original.
        value, gate = self.proj_in(h.unsqueeze(2)).float().chunk(2, 1)
        inner = (value * F.gelu(gate)).unflatten(0, (-1, frames))
        now = (inner.shape[2] + 1) // 2
        inner = torch.cat([inner[:, :, :now], delay(inner[:, :, now:], 1)], 2).flatten(0, 1)
        return project(norm(inner).to(h.dtype)).squeeze(2)


class FrameShift(nn.Module):
    """A convolution whose eighths of the channels are 0, 1, ..., 7 frames late: ``[B * T, C, H, W]`` -> same."""

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        self.out_layers = nn.Sequential(
            make.group_norm(channels), nn.SiLU(), make.zeroed(make.conv(channels, channels))
        )

    def forward(self, h: Tensor, frames: int) -> Tensor:
        groups = self.out_layers(h).unflatten(0, (-1, frames)).chunk(_SHIFTS, 2)
        return torch.cat([delay(group, k) for k, group in enumerate(groups)], 2).flatten(0, 1)


class SpatioTemporalBlock(nn.Module):
    """Temporal attention, shifted feed-forward and frame shift (SPEC section 2.2).

    ``h [B * T, C, H, W]`` with ``frames = T`` -> same shape. With `clip` there is attention to the whole clip
    after that through time.
    """

    def __init__(self, channels: int, make: Factory, norm: str = "frames", clip: bool = False) -> None:
        super().__init__()
        self.temporal_attn = TemporalAttention(channels, make, norm)
        self.temporal_rel_pos_bias = RelativePositionBias(channels // 2, make)
        self.clip_attn = ClipAttention(channels, make) if clip else None
        self.ff = TemporalFeedForward(channels, make)
        self.frameshiftblock = FrameShift(channels, make)

    def forward(self, h: Tensor, frames: int) -> Tensor:
        size = h.shape[2:]
        x = h.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (-1, frames))
        x = x + self.temporal_attn(x, self.temporal_rel_pos_bias((frames,), h))
        h = x.flatten(0, 1).unflatten(1, size).permute(0, 3, 1, 2)
        if self.clip_attn is not None:
            h = self.clip_attn(h, frames)
        h = h + self.ff(h, frames)
        return h + self.frameshiftblock(h, frames)


class TemporalResBlock(nn.Sequential):
    """A residual block followed by a spatio-temporal block, which still images skip (SPEC section 2.1)."""

    def __init__(self, inputs: int, outputs: int, emb_dim: int, make: Factory, norm: str, clip: bool = False) -> None:
        super().__init__(ResBlock(inputs, outputs, emb_dim, make), SpatioTemporalBlock(outputs, make, norm, clip))

    def forward(self, h: Tensor, emb: Tensor, frames: int | None) -> Tensor:
        spatial, temporal = self
        h = spatial(h, emb)
        return h if frames is None else temporal(h, frames)
