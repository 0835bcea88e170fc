"""Stage 4: latent alignment between diffusers, in the paper's linear order (section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffuser import Diffuser
from ..diffusion import STEPS
from ..modality import modality
from ..prompts import TextEncoder
from .contrast import Contrast
from .diffusers import DiffusionStage, Latents, alignment_parts


class AlignmentStage(DiffusionStage):
    """Two streams learn to listen to each other; the diffusers are frozen.

    What is trained are connectors and environment encoders. A stream of an earlier pair keeps its environment encoder,
    so that what it says stays what everybody else has learnt to understand (but for pictures when videos, which share
    it, are new), while its connectors go on learning to hear the newcomer; earlier pairs are replayed in turns with the
    new one.

    The loss is the v loss of every stream, given the other's noisy latent, plus InfoNCE between their environment
    embeddings, which lets streams understand each other that were never trained together. InfoNCE has a small weight:
    at high noise it would pull the embedding of the stream that already shows an attribute towards that of the stream
    that does not yet, and so hide what is worth hearing. Captions leave much out, since what the prompt says need not
    be heard from another stream.

    Parameters
    ----------
    streams : pair of str
        The pair to align.
    replay : sequence of pairs of str
        Pairs that were aligned before.
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
    ):
        pairs = (streams, *replay)
        super().__init__(diffuser, text_encoder, data, tuple(dict.fromkeys(m for pair in pairs for m in pair)), prompts)
        self.name = "alignment_" + "_".join(streams)
        self.pairs, self.contrast_weight = pairs, contrast_weight
        self.contrast = Contrast()
        diffuser.requires_grad_(False)
        earlier = {m for pair in replay for m in pair}
        settled = {modality(m).network for m in earlier} - {modality(m).network for m in set(streams) - earlier}
        for network in {modality(m).network for m in self.streams}:
            environment, *connectors = alignment_parts(diffuser.networks[network])
            environment.requires_grad_(network not in settled)
            for part in connectors:
                part.requires_grad_(True)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        # The new pair takes every second turn, earlier ones share the others.
        pair = (
            self.pairs[0]
            if step % 2 == 0 or len(self.pairs) == 1
            else self.pairs[1 + step // 2 % (len(self.pairs) - 1)]
        )
        return self.data.batch(step, size, seed, pair, self.prompts, leave_out=0.75, empty=0.1)

    def timesteps(self, size: int, generator: torch.Generator) -> Tensor:
        # High noise, where it is decided what the streams will agree on, comes more often: its density grows linearly.
        return (STEPS * torch.rand(size, generator=generator).sqrt()).long().clamp(max=STEPS - 1)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noisy, noise, timesteps, context = self.noised(batch, generator)
        environment = self.diffuser.environment(noisy, timesteps)
        predicted = self.diffuser(noisy, timesteps, context, alignment="paper", environment=environment)
        errors = {m: self.error(predicted[m], noise[m], timesteps) for m in noisy}
        a, b = (F.normalize(environment[m].mean(1), dim=-1) for m in noisy)
        contrast = self.contrast(a, b)
        loss = sum(errors.values()) / len(errors) + self.contrast_weight * contrast
        figures = {m: float(e.detach()) for m, e in errors.items()} | {"contrast": float(contrast.detach())}
        return loss, figures
