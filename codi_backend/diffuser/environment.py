"""The environment encoder: what one stream tells the others (SPEC section 2, step 4, and section 2.1)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import UNetConfig
from .kit import Kit, Stage


class EnvironmentEncoder(nn.ModuleList):
    """Encodes a noisy latent as one vector of length 1.

    ``h [N, C, H, W]`` (or ``[B, D]``), ``emb [B, E]`` -> ``[B, environment_dim]``, where N is B, or B times `frames`.
    """

    def __init__(self, config: UNetConfig, kit: Kit) -> None:
        channels = config.model_channels // 2
        stages = [Stage([kit.entry(config.in_channels, channels)])]
        levels = list(zip(config.environment_mult, config.environment_res_blocks, strict=True))
        for level, (mult, blocks) in enumerate(levels):
            for _ in range(blocks):
                inputs, channels = channels, mult * config.model_channels
                stages.append(Stage([kit.residual(inputs, channels)]))
            if level < len(levels) - 1:
                stages.append(Stage([kit.down(channels)]))
        super().__init__([*stages, kit.head(channels, config.environment_dim)])

    def forward(self, h: Tensor, emb: Tensor, frames: int | None = None) -> Tensor:
        *stages, head = self
        for stage in stages:
            h = stage(h, emb, frames=frames)
        h = head(h).flatten(2).mean(2) if h.ndim == 4 else head(h)
        if frames is not None:
            h = h.unflatten(0, (-1, frames)).mean(1)
        # In single precision: a sum of squares overflows or vanishes in half precision.
        return F.normalize(h.float(), dim=-1).to(h.dtype)
