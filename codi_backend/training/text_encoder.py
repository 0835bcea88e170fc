"""Stage 2: the text prompt encoder, by contrast with image and audio latents (bridging alignment, paper section 3.2).

Image and audio never occur as a pair: each is compared with captions only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import CoDiConfig
from ..models.encoders import TextEncoder
from .contrast import Contrast
from .diffusers import Latents
from .loop import Stage


class LatentTower(nn.Module):
    """A small convolutional network from scaled latents ``[B, C, H, W]`` to unit vectors ``[B, D]``."""

    def __init__(self, channels: int, dim: int, width: int = 96):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.LazyLinear(dim),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return F.normalize(self.net(latents), dim=-1)


class TextEncoderStage(Stage):
    """Trains the text encoder against one tower for images and one for audio, which only training needs."""

    name = "text_encoder"

    def __init__(self, config: CoDiConfig, data: Latents, streams: Sequence[str] = ("image", "audio")):
        super().__init__()
        self.text_encoder = TextEncoder(config.text_encoder)
        nn.init.normal_(self.text_encoder.token_embedding.weight, std=0.02)
        nn.init.normal_(self.text_encoder.position_embedding.weight, std=0.02)
        self.towers = nn.ModuleDict()
        self.contrasts = nn.ModuleDict()
        self.data, self.streams = data, tuple(streams)
        for number, name in enumerate(streams):
            latents = self.batch(number, 1, 0)[name]
            self.towers[name] = LatentTower(latents.shape[1], config.text_encoder.embedding_dim)
            self.towers[name](latents)  # fixes the size of its last layer
            self.contrasts[name] = Contrast()

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor | list[str]]:
        # Image and audio take turns, so that no batch has both.
        name = self.streams[step % len(self.streams)]
        return self.data.batch(step, size, seed, (name,), ("text",), leave_out=0.25, empty=0.0)

    def forward(
        self, batch: dict[str, Tensor | list[str]], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        (name,) = batch.keys() & self.towers.keys()
        device = batch[name].device
        text = self.text_encoder(self.text_encoder.tokenize(batch["captions"]).to(device))[:, 0]
        loss = self.contrasts[name](text, self.towers[name](batch[name]))
        return loss, {}
