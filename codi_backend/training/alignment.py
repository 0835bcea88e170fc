"""Stage 4: latent alignment between diffusers, in the paper's linear order (section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..diffuser import Diffuser
from ..diffuser.environment import pooled
from ..diffusion import add_noise
from ..modality import modality
from ..prompts import TextEncoder
from .contrast import Contrast, TimeContrast
from .diffusers import DiffusionStage, Latents, alignment_parts

_PAIRS_PER_VIDEO = 4  # of about the same cost


class AlignmentStage(DiffusionStage):
    """Two streams learn to listen to each other; the diffusers are frozen.

    What is trained are connectors and environment encoders, on the new pair and, in turns with it, on the pairs of
    earlier stages, lest they be forgotten. The loss is the v loss of every stream, given the other's latent; InfoNCE
    between their environment embeddings, and between the moments of two streams with time; and their distance to the
    prompt embedding of what they show, which keeps all streams speaking one language while they learn to tell more.
    Captions leave much out, since what the prompt says need not be heard from another stream.

    Speakers are at the listener's noise level in half of the samples, and at a lower one in the others: some streams
    decide early what they will be, and held ones are clean, so listeners must know speakers that are sure of
    themselves.

    With `teach`, the target of the v loss is not the noise itself but what the same frozen network predicts from the
    full description. Its mean, given what both streams show, is the same wherever all that they share can be said, and
    it varies far less. What cannot be said, when something happens, only the noise itself tells: two streams with time
    learn from the mean of both targets.

    Parameters
    ----------
    streams : pair of str
        The pair to align.
    replay : sequence of pairs of str
        Pairs that were aligned before.
    teach : bool
        Whether `data` describe in full what their latents show, so that the diffuser can be its own teacher.
    contrast_weight, time_weight, gap_weight : float
        Of InfoNCE between streams and between moments, and of the distance; the distance needs environment tokens of
        the prompts' width.
    """

    often_noisy = True  # where it is decided what the streams will agree on

    def __init__(
        self,
        diffuser: Diffuser,
        text_encoder: TextEncoder,
        data: Latents,
        streams: tuple[str, str],
        replay: Sequence[tuple[str, str]] = (),
        prompts: tuple[str, ...] = ("text",),
        teach: bool = False,
        contrast_weight: float = 0.02,
        time_weight: float = 0.05,
        gap_weight: float = 0.5,
    ):
        pairs = (streams, *replay)
        super().__init__(diffuser, text_encoder, data, tuple(dict.fromkeys(m for pair in pairs for m in pair)), prompts)
        self.name = "alignment_" + "_".join(streams)
        self.pairs, self.teach = pairs, teach
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
        spoken_at = speaking_times(timesteps, generator)
        spoken = {m: add_noise(batch[m].to(noise[m]), noise[m], spoken_at, self.alphas) for m in noisy}
        environment = self.diffuser.environment(spoken, spoken_at)
        predicted = self.diffuser(noisy, timesteps, context, alignment="paper", environment=environment)
        shown = self.embed(batch["described"])
        timed = all(tokens.shape[1] > 1 for tokens in environment.values())
        errors = {m: self.error(predicted[m], noise[m], timesteps) for m in noisy}
        loss = sum(errors.values()) / len(errors)
        figures = {m: float(e.detach()) for m, e in errors.items()}
        if self.teach:
            with torch.no_grad():
                taught = self.diffuser(noisy, timesteps, shown, alignment="none")
            lesson = sum(self.error(predicted[m], taught[m], timesteps) for m in noisy) / len(noisy)
            loss = (loss + lesson) / 2 if timed else lesson
            figures["lesson"] = float(lesson.detach())
        a, b = (pooled(environment[m])[:, 0] for m in noisy)
        contrast = self.contrast(a, b)
        loss = loss + self.contrast_weight * contrast
        figures["contrast"] = float(contrast.detach())
        if timed:
            when = self.time_contrast(*environment.values())
            loss = loss + self.time_weight * when
            figures["time"] = float(when.detach())
        if self.gap_weight:
            gap = sum(self.gap(environment[m], shown) for m in noisy) / len(noisy)
            loss = loss + self.gap_weight * gap
            figures["gap"] = float(gap.detach())
        return loss, figures


def speaking_times(timesteps: Tensor, generator: torch.Generator) -> Tensor:
    """Noise levels of speakers by those of their listeners, ``[B]``: the same for half of them, lower for others."""
    share = (2 * torch.rand(len(timesteps), generator=generator)).clamp(max=1).to(timesteps.device)
    return (share * timesteps).long()
