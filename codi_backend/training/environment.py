"""Stage 4, first half: environment encoders, before their streams learn to listen to each other (paper section 3.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..diffuser import Diffuser
from ..modality import modality
from ..prompts import TextEncoder
from .diffusers import DiffusionStage, Latents, temporal_parameters


class EnvironmentStage(DiffusionStage):
    """An environment encoder learns to say what its noisy stream is about.

    That is the prompt embedding of its description, as far as it can be told through the noise. All streams then speak
    one language, the prompts', so that those understand each other that were never trained together, and connectors
    have something to hear from their first step on. For videos only the temporal blocks learn, as in the diffuser.
    """

    def __init__(self, diffuser: Diffuser, text_encoder: TextEncoder, data: Latents, stream: str):
        super().__init__(diffuser, text_encoder, data, (stream,))
        self.name = f"environment_{stream}"
        diffuser.requires_grad_(False)
        encoder = diffuser.networks[modality(stream).network].environment_encoder
        for p in temporal_parameters(encoder) if stream == "video" else encoder.parameters():
            p.requires_grad_(True)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        return self.data.batch(step, size, seed, self.streams, self.prompts, leave_out=0.0, empty=0.0)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noisy, _, timesteps = self.noised(batch, generator)
        (environment,) = self.diffuser.environment(noisy, timesteps).values()
        return self.gap(environment, self.embed(batch["described"])), {}
