"""The environment encoder: what one stream tells the others (SPEC section 2, step 4, and section 2.1)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import UNetConfig
from .kit import Kit, Stage


def pooled(tokens: Tensor) -> Tensor:
    """Tokens ``[B, T, D]`` as one of length 1 that tells of the whole time: ``[B, 1, D]``."""
    # In single precision: a sum of squares overflows or vanishes in half precision.
    return F.normalize(tokens.float().mean(1, keepdim=True), dim=-1).to(tokens.dtype)


def resampled(tokens: Tensor, steps: int) -> Tensor:
    """``[B, T, D] -> [B, steps, D]``: means over time for fewer steps, which leave nothing out; else interpolated."""
    over_time = tokens.transpose(1, 2)
    if steps < tokens.shape[1]:
        return F.adaptive_avg_pool1d(over_time, steps).transpose(1, 2)
    return F.interpolate(over_time, size=steps, mode="linear").transpose(1, 2)


def moments(tokens: Tensor) -> Tensor:
    """The channels that tell what happens when, of tokens that keep time: ``[B, T, D] -> [B, T, D / 2]``."""
    return tokens.chunk(2, -1)[0]


class EnvironmentEncoder(nn.ModuleList):
    """Encodes a noisy latent as one token of length 1, or as one per time step.

    ``h [N, C, H, W]`` (or ``[B, D]``), ``emb [B, E]`` -> ``[B, T, environment_dim]``, where N is B, or B times
    `frames`. T is 1 unless the configuration keeps time and the latent has any: then it is the number of frames, or H,
    of which downsampling then spares the rows. Of such tokens the second half of the channels is averaged over
    time: it tells what holds for the whole stream, the first half what happens when.
    """

    def __init__(self, config: UNetConfig, kit: Kit) -> None:
        super().__init__()
        self.time = config.environment_time
        down = partial(kit.down, keep_rows=True) if self.time == "rows" else kit.down
        channels = config.model_channels // 2
        stages = [Stage([kit.entry(config.in_channels, channels)])]
        levels = list(zip(config.environment_mult, config.environment_res_blocks, strict=True))
        for level, (mult, blocks) in enumerate(levels):
            for _ in range(blocks):
                inputs, channels = channels, mult * config.model_channels
                stages.append(Stage([kit.residual(inputs, channels)]))
            if level < len(levels) - 1:
                stages.append(Stage([down(channels)]))
        self.extend([*stages, kit.head(channels, config.environment_dim)])

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
            moment, whole = h.chunk(2, -1)
            h = torch.cat([moment, whole.mean(1, keepdim=True).expand_as(whole)], -1)
        # In single precision: a sum of squares overflows or vanishes in half precision.
        return F.normalize(h.float(), dim=-1).to(h.dtype)
