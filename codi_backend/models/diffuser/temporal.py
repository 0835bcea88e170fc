"""The spatio-temporal block that follows every residual block of the video network (SPEC section 2.2).

Features keep the frames in the batch axis, ``[B * T, C, H, W]``, so that everything two-dimensional needs no reshaping.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layer_factory import LayerFactory
from .layers import ResBlock
from .temporal_position import HEADS, RelativePositionBias
from .video_attention import VideoAttention

_SHIFTS = 8
_POSITIONS = 30  # rows of the published tables
_NORM_AXES = {"frames": 1, "channels": -1}
_FRAME_RATE = 3  # The released code always passes frame rate 4, whose row is the fourth.


class RawParameter(nn.Module):
    """A bare parameter as a leaf module.

    ComfyUI's memory manager moves leaf modules. When memory is short, it does not move one marked `comfy_cast_weights`;
    such a module casts its weight to the input at each use and applies `weight_function` (pending LoRA patches), as
    `cast` does. The manager reads the attribute `bias` of such modules too.
    """

    comfy_cast_weights = True
    weight_function: tuple | list = ()
    bias = None

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(value)

    def cast(self, x: Tensor) -> Tensor:
        """Return the parameter on the device and in the dtype of `x`."""
        # A patch may work in place, and must not change the parameter.
        weight = self.weight.to(x, copy=len(self.weight_function) > 0)
        for function in self.weight_function:
            weight = function(weight)
        return weight


class PositionTable(RawParameter):
    """A learned row per frame or per frame rate, ``[1, 30, C]``."""

    def __init__(self, channels: int, factory: LayerFactory) -> None:
        table = 0.02 * torch.randn(1, _POSITIONS, channels, device=factory.device)
        super().__init__(table.to(factory.dtype or table.dtype))  # torch has no random 8-bit floats

    def rows(self, frames: int, x: Tensor) -> Tensor:
        """Position embeddings ``[1, frames, C]``; beyond 30 frames the table is interpolated, as in ViTs."""
        table = self.cast(x)
        if frames <= _POSITIONS:
            return table[:, :frames]
        return F.interpolate(table.transpose(1, 2), frames, mode="linear").transpose(1, 2)


class ClampedNorm(RawParameter):
    """Normalisation over one axis with a gain and no bias; the variance is clamped to eps instead of adding eps.

    Half precision needs a larger eps, as in the original (SPEC section 2.2).
    """

    def __init__(self, *shape: int, factory: LayerFactory, axis: int = 1) -> None:
        super().__init__(torch.ones(shape, dtype=factory.dtype, device=factory.device))
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        eps = 1e-3 if x.dtype in (torch.float16, torch.bfloat16) else 1e-5
        x = x - x.mean(self.axis, keepdim=True)
        variance = x.square().mean(self.axis, keepdim=True)  # torch.var_mean takes several times as long on a CPU
        return x * variance.clamp_min(eps).rsqrt() * self.cast(x)


def delay(x: Tensor, frames: int) -> Tensor:
    """Delay ``[B, T, ...]`` by `frames` along T; the first frames become zero."""
    frames = min(frames, x.shape[1])
    return torch.cat([torch.zeros_like(x[:, :frames]), x[:, : x.shape[1] - frames]], 1)


class TemporalAttention(nn.Module):
    """Attention among the frames of each pixel: ``x [B, T, P, C]``, ``bias [heads, T, T]`` -> ``[B, T, P, C]``.

    Its normalisation runs over the frames, or over the channels: see `UNetConfig.temporal_norm`.
    """

    def __init__(self, channels: int, factory: LayerFactory, norm: str) -> None:
        super().__init__()
        inner = HEADS * (channels // 4)
        self.pos_embeds = PositionTable(channels, factory)
        self.frame_rate_embeds = PositionTable(channels, factory)
        self.norm = ClampedNorm(channels, factory=factory, axis=_NORM_AXES[norm])
        self.to_q = factory.linear(channels, inner, bias=False)
        self.to_kv = factory.linear(channels, 2 * inner, bias=False)
        self.to_out = factory.zeroed(factory.linear(inner, channels, bias=False))

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
    """A gated layer that delays half of its inner channels by one frame: ``[B * T, C, H, W]`` -> same."""

    def __init__(self, channels: int, factory: LayerFactory) -> None:
        super().__init__()
        inner = int(channels * 4 * 2 / 3)
        self.proj_in = nn.Sequential(factory.pointwise3d(channels, 2 * inner))
        self.proj_out = nn.Sequential(
            ClampedNorm(inner, 1, 1, 1, factory=factory), factory.pointwise3d(inner, channels)
        )

    def forward(self, h: Tensor, frames: int) -> Tensor:
        norm, project = self.proj_out
        # In single precision throughout the gate and the norm, as in the original.
        value, gate = self.proj_in(h.unsqueeze(2)).float().chunk(2, 1)
        inner = (value * F.gelu(gate)).unflatten(0, (-1, frames))
        now = (inner.shape[2] + 1) // 2
        inner = torch.cat([inner[:, :, :now], delay(inner[:, :, now:], 1)], 2).flatten(0, 1)
        return project(norm(inner).to(h.dtype)).squeeze(2)


class FrameShift(nn.Module):
    """A convolution that delays the eighths of its channels by 0, 1, ..., 7 frames: ``[B * T, C, H, W]`` -> same."""

    def __init__(self, channels: int, factory: LayerFactory) -> None:
        super().__init__()
        self.out_layers = nn.Sequential(
            factory.group_norm(channels), nn.SiLU(), factory.zeroed(factory.conv(channels, channels))
        )

    def forward(self, h: Tensor, frames: int) -> Tensor:
        groups = self.out_layers(h).unflatten(0, (-1, frames)).chunk(_SHIFTS, 2)
        return torch.cat([delay(group, k) for k, group in enumerate(groups)], 2).flatten(0, 1)


class SpatioTemporalBlock(nn.Module):
    """Temporal attention, shifted feed-forward and frame shift (SPEC section 2.2).

    ``h [B * T, C, H, W]`` with ``frames = T`` -> same shape. With `full_attention`, a `VideoAttention` follows the
    temporal attention.
    """

    def __init__(
        self, channels: int, factory: LayerFactory, norm: str = "frames", full_attention: bool = False
    ) -> None:
        super().__init__()
        self.temporal_attn = TemporalAttention(channels, factory, norm)
        self.temporal_rel_pos_bias = RelativePositionBias(channels // 2, factory)
        self.clip_attn = VideoAttention(channels, factory) if full_attention else None
        self.ff = TemporalFeedForward(channels, factory)
        self.frameshiftblock = FrameShift(channels, factory)

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
    """A residual block and a spatio-temporal block, which is skipped for images (SPEC section 2.1)."""

    def __init__(
        self, inputs: int, outputs: int, emb_dim: int, factory: LayerFactory, norm: str, full_attention: bool = False
    ) -> None:
        super().__init__(
            ResBlock(inputs, outputs, emb_dim, factory), SpatioTemporalBlock(outputs, factory, norm, full_attention)
        )

    def forward(self, h: Tensor, emb: Tensor, frames: int | None) -> Tensor:
        spatial, temporal = self
        h = spatial(h, emb)
        return h if frames is None else temporal(h, frames)
