"""Stage 4, first part: environment encoders, before connectors are trained (paper section 3.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..modalities import modality
from ..models.diffuser import Diffuser
from ..models.encoders import TextEncoder
from .contrast import TimeContrast
from .diffusers import DiffusionStage, Latents, temporal_parameters


class EnvironmentStage(DiffusionStage):
    """Trains environment encoders to predict the caption's prompt embedding from noisy latents.

    All streams then share one embedding space, that of prompts. So streams can be combined that were never trained
    together, and connectors get useful tokens from their first step on. The moments of two streams with a time axis are
    matched as well (`TimeContrast`). For video only the temporal blocks are trained, as in the diffuser.
    """

    def __init__(
        self,
        diffuser: Diffuser,
        text_encoder: TextEncoder,
        data: Latents,
        streams: tuple[str, ...],
        time_weight: float = 0.2,
    ):
        super().__init__(diffuser, text_encoder, data, streams)
        self.name = "environment_" + "_".join(streams)
        diffuser.requires_grad_(False)
        for stream in streams:
            encoder = diffuser.networks[modality(stream).network].environment_encoder
            for p in temporal_parameters(encoder) if stream == "video" else encoder.parameters():
                p.requires_grad_(True)
        self.time_weight = time_weight
        self.time_contrast = TimeContrast() if len(streams) > 1 else None

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        return self.data.batch(step, size, seed, self.streams, self.prompts, leave_out=0.0, empty=0.0)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noisy, _, timesteps = self.noised(batch, generator)
        environment = self.diffuser.environment(noisy, timesteps)
        described = self.embed(batch["described"])
        gaps = {name: self.gap(tokens, described) for name, tokens in environment.items()}
        loss = sum(gaps.values()) / len(gaps)
        if self.time_contrast is None:
            return loss, {}
        when = self.time_contrast(*environment.values())
        figures = {name: float(gap.detach()) for name, gap in gaps.items()} | {"time": float(when.detach())}
        return loss + self.time_weight * when, figures
