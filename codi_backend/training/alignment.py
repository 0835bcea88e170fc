"""Stage 4: latent alignment between diffusers, in the paper's linear order (section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..modalities import modality
from ..models.diffuser import Diffuser
from ..models.diffuser.environment import pooled
from ..models.encoders import TextEncoder
from ..models.noise_schedule import add_noise
from .contrast import Contrast, TimeContrast
from .diffusers import DiffusionStage, Latents, alignment_parts

_PAIRS_PER_VIDEO = 4  # of about the same cost


class AlignmentStage(DiffusionStage):
    """Trains the connectors and environment encoders of two streams; the diffusers are frozen.

    Batches of the new pair take turns with those of earlier pairs, so that these are not forgotten. The loss is the v
    loss of both streams, each given the other's environment tokens; InfoNCE between their environment embeddings, and
    between the moments of two streams with a time axis; and the distance of these embeddings from the prompt embedding
    of the full caption, which keeps all streams in one space. Captions leave out much, since a target stream takes
    from a source stream only what its prompt does not state.

    Source streams are at the target's noise level in half of the samples, and at a lower one in the others: some
    streams settle earlier than others, and held ones are clean.

    With `distill` the target of the v loss is not the noise but the prediction of the same frozen network for the full
    caption. Its mean, given both streams, is the same wherever the caption describes all that they share, and it varies
    far less. No caption states when something happens, so two streams with a time axis learn from the mean of both
    losses.

    Parameters
    ----------
    streams : pair of str
        The pair to align.
    replay : sequence of pairs of str
        Pairs that were aligned before.
    distill : bool
        Whether `data` describe their latents in full, so that the frozen diffuser can be the teacher.
    contrast_weight, time_weight, gap_weight : float
        Of InfoNCE between streams and between moments, and of the distance; the distance needs environment tokens of
        the prompts' width.
    """

    often_noisy = True  # the attributes that streams share are decided at high noise

    def __init__(
        self,
        diffuser: Diffuser,
        text_encoder: TextEncoder,
        data: Latents,
        streams: tuple[str, str],
        replay: Sequence[tuple[str, str]] = (),
        prompts: tuple[str, ...] = ("text",),
        distill: bool = False,
        contrast_weight: float = 0.02,
        time_weight: float = 0.05,
        gap_weight: float = 0.5,
    ):
        pairs = (streams, *replay)
        super().__init__(diffuser, text_encoder, data, tuple(dict.fromkeys(m for pair in pairs for m in pair)), prompts)
        self.name = "alignment_" + "_".join(streams)
        self.pairs, self.distill = pairs, distill
        self.contrast_weight, self.time_weight = contrast_weight, time_weight
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
        if "video" in self.pairs[0] and "video" not in pair:
            size *= _PAIRS_PER_VIDEO
        return self.data.batch(step, size, seed, pair, self.prompts, leave_out=0.75, empty=0.1)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noisy, noise, timesteps = self.noised(batch, generator)
        context = self.context(batch, generator)
        source_at = source_timesteps(timesteps, generator)
        sources = {m: add_noise(batch[m].to(noise[m]), noise[m], source_at, self.alphas) for m in noisy}
        environment = self.diffuser.environment(sources, source_at)
        predicted = self.diffuser(noisy, timesteps, context, alignment="paper", environment=environment)
        described = self.embed(batch["described"])
        timed = all(tokens.shape[1] > 1 for tokens in environment.values())
        errors = {m: self.error(predicted[m], noise[m], timesteps) for m in noisy}
        loss = sum(errors.values()) / len(errors)
        figures = {m: float(e.detach()) for m, e in errors.items()}
        if self.distill:
            with torch.no_grad():
                teacher = self.diffuser(noisy, timesteps, described, alignment="none")
            distillation = sum(self.error(predicted[m], teacher[m], timesteps) for m in noisy) / len(noisy)
            loss = (loss + distillation) / 2 if timed else distillation
            figures["distillation"] = float(distillation.detach())
        a, b = (pooled(environment[m])[:, 0] for m in noisy)
        contrast = self.contrast(a, b)
        loss = loss + self.contrast_weight * contrast
        figures["contrast"] = float(contrast.detach())
        if timed:
            when = self.time_contrast(*environment.values())
            loss = loss + self.time_weight * when
            figures["time"] = float(when.detach())
        if self.gap_weight:
            gap = sum(self.gap(environment[m], described) for m in noisy) / len(noisy)
            loss = loss + self.gap_weight * gap
            figures["gap"] = float(gap.detach())
        return loss, figures


def source_timesteps(timesteps: Tensor, generator: torch.Generator) -> Tensor:
    """Noise levels of source streams by those of their targets, ``[B]``: equal for half of them, lower for others."""
    share = (2 * torch.rand(len(timesteps), generator=generator)).clamp(max=1).to(timesteps.device)
    return (share * timesteps).long()
