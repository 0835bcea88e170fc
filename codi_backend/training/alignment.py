"""Stage 4: latent alignment between diffusers, in the paper's linear order (section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..diffuser import Diffuser
from ..diffuser.environment import pooled
from ..diffusion import STEPS
from ..modality import modality
from ..prompts import TextEncoder
from .contrast import Contrast, TimeContrast
from .diffusers import DiffusionStage, Latents, alignment_parts


class AlignmentStage(DiffusionStage):
    """Two streams learn to listen to each other; the diffusers are frozen.

    What is trained are connectors and environment encoders, on the new pair and, in turns with it, on the pairs of
    earlier stages, lest they be forgotten. The loss is the v loss of every stream, given the other's noisy latent;
    InfoNCE between their environment embeddings, and between the moments of two streams with time; and their distance
    to the prompt embedding of what they show, which keeps all streams speaking one language while they learn to tell
    more. Captions leave much out, since what the
    prompt says need not be heard from another stream.

    Parameters
    ----------
    streams : pair of str
        The pair to align.
    replay : sequence of pairs of str
        Pairs that were aligned before.
    contrast_weight, time_weight, gap_weight : float
        Of InfoNCE between streams and between moments, and of the distance; the distance needs environment tokens of
        the prompts' width.
    """

    def __init__(
        self,
        diffuser: Diffuser,
        text_encoder: TextEncoder,
        data: Latents,
        streams: tuple[str, str],
        replay: Sequence[tuple[str, str]] = (),
        prompts: tuple[str, ...] = ("text",),
        contrast_weight: float = 0.02,
        time_weight: float = 0.05,
        gap_weight: float = 0.5,
    ):
        pairs = (streams, *replay)
        super().__init__(diffuser, text_encoder, data, tuple(dict.fromkeys(m for pair in pairs for m in pair)), prompts)
        self.name = "alignment_" + "_".join(streams)
        self.pairs, self.contrast_weight, self.time_weight = pairs, contrast_weight, time_weight
        self.contrast, self.time_contrast = Contrast(), TimeContrast()
        diffuser.requires_grad_(False)
        networks = [diffuser.networks[modality(m).network] for m in self.streams]
        for network in networks:
            for part in alignment_parts(network):
                part.requires_grad_(True)
        same_width = all(network.config.environment_dim == network.config.context_dim for network in networks)
        self.gap_weight = gap_weight if same_width else 0.0

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        # The new pair takes every second turn, earlier ones share the others.
        earlier = self.pairs[1:]
        pair = earlier[step // 2 % len(earlier)] if earlier and step % 2 else self.pairs[0]
        return self.data.batch(step, size, seed, pair, self.prompts, leave_out=0.75, empty=0.1)

    def timesteps(self, size: int, generator: torch.Generator) -> Tensor:
        # High noise, where it is decided what the streams will agree on, comes more often: its density grows linearly.
        return (STEPS * torch.rand(size, generator=generator).sqrt()).long().clamp(max=STEPS - 1)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noisy, noise, timesteps = self.noised(batch, generator)
        context = self.context(batch, generator)
        environment = self.diffuser.environment(noisy, timesteps)
        predicted = self.diffuser(noisy, timesteps, context, alignment="paper", environment=environment)
        errors = {m: self.error(predicted[m], noise[m], timesteps) for m in noisy}
        a, b = (pooled(environment[m])[:, 0] for m in noisy)
        contrast = self.contrast(a, b)
        loss = sum(errors.values()) / len(errors) + self.contrast_weight * contrast
        figures = {m: float(e.detach()) for m, e in errors.items()} | {"contrast": float(contrast.detach())}
        if all(tokens.shape[1] > 1 for tokens in environment.values()):
            when = self.time_contrast(*environment.values())
            loss = loss + self.time_weight * when
            figures["time"] = float(when.detach())
        if self.gap_weight:
            shown = self.embed(batch["described"])
            gap = sum(self.gap(environment[m], shown) for m in noisy) / len(noisy)
            loss = loss + self.gap_weight * gap
            figures["gap"] = float(gap.detach())
        return loss, figures
