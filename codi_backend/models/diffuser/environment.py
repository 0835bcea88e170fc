"""The environment encoder, whose tokens other streams attend to (SPEC section 2, step 4, and section 2.1)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import UNetConfig
from .layer_plan import LayerPlan, Stage


def pooled(tokens: Tensor) -> Tensor:
    """Average tokens over time and normalise the mean to length 1: ``[B, T, D] -> [B, 1, D]``."""
    # In single precision: a sum of squares overflows or vanishes in half precision.
    return F.normalize(tokens.float().mean(1, keepdim=True), dim=-1).to(tokens.dtype)


def resampled(tokens: Tensor, steps: int) -> Tensor:
    """Resample tokens over time, ``[B, T, D] -> [B, steps, D]``: mean pooling to fewer steps, interpolation to more."""
    over_time = tokens.transpose(1, 2)
    if steps < tokens.shape[1]:
        return F.adaptive_avg_pool1d(over_time, steps).transpose(1, 2)
    return F.interpolate(over_time, size=steps, mode="linear").transpose(1, 2)


def temporal_channels(tokens: Tensor) -> Tensor:
    """The channels of time-resolved tokens that vary over time: ``[B, T, D] -> [B, T, D / 2]``."""
    return tokens.chunk(2, -1)[0]


class EnvironmentEncoder(nn.ModuleList):
    """Encodes a noisy latent as one token of length 1, or as one token per time step.

    ``h [N, C, H, W]`` (or ``[B, D]``), ``emb [B, E]`` -> ``[B, T, environment_dim]``, where N is B, or B times
    `frames`. T is 1 without `UNetConfig.environment_time`, or for a latent without a time axis. With "frames" it is the
    number of frames; with "rows" it is H, and downsampling keeps the rows. In time-resolved tokens the second half of
    the channels is averaged over time, so that it describes the whole stream; the first half varies over time.
    """

    def __init__(self, config: UNetConfig, plan: LayerPlan) -> None:
        super().__init__()
        self.time = config.environment_time
        down = partial(plan.down, keep_rows=True) if self.time == "rows" else plan.down
        channels = config.model_channels // 2
        stages = [Stage([plan.entry(config.in_channels, channels)])]
        levels = list(zip(config.environment_mult, config.environment_res_blocks, strict=True))
        for level, (mult, blocks) in enumerate(levels):
            for _ in range(blocks):
                inputs, channels = channels, mult * config.model_channels
                stages.append(Stage([plan.residual(inputs, channels)]))
            if level < len(levels) - 1:
                stages.append(Stage([down(channels)]))
        self.extend([*stages, plan.head(channels, config.environment_dim)])

    def forward(self, h: Tensor, emb: Tensor, frames: int | None = None) -> Tensor:
        *stages, head = self
        for stage in stages:
            h = stage(h, emb, frames=frames)
        h = head(h)
        if self.time == "rows":
            h = h.mean(3).transpose(1, 2)
        else:
            h = h.flatten(2).mean(2)[:, None] if h.ndim == 4 else h[:, None]
            if frames is not None:
                h = h.unflatten(0, (-1, frames)).squeeze(2)
        if self.time is None:
            h = h.mean(1, keepdim=True)
        elif h.shape[1] > 1:
            varying, constant = h.chunk(2, -1)
            h = torch.cat([varying, constant.mean(1, keepdim=True).expand_as(constant)], -1)
        # In single precision: a sum of squares overflows or vanishes in half precision.
        return F.normalize(h.float(), dim=-1).to(h.dtype)
