"""Stage 4, last part: distillation of the full caption's prediction into connectors (paper section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..modalities import modality
from ..models.diffuser import Diffuser
from ..models.encoders import TextEncoder
from ..models.noise_schedule import add_noise, eps_from_v
from .alignment import source_timesteps
from .diffusers import IMAGES_PER_VIDEO, DiffusionStage, Latents, connectors

_MOST_SOURCES = 3
_TIMED_DISTILLATION = 0.25


class DistillationStage(DiffusionStage):
    """Trains the connectors of one network; its environment encoder and all else are frozen.

    The loss is the distance to the frozen network's own prediction for the full caption. Only the target stream is
    differentiated, and no other network's connectors change. No caption states when something happens: of two streams
    with a time axis, the noise itself has most of the weight. Noise levels and captions are as in `AlignmentStage`.

    A batch has one, two or three sources: the source stream again and again, each time with other noise at another
    level. They stand for several source streams, whose contributions are added up: connectors that were trained with
    one source would override the prompt when there are more.

    Parameters
    ----------
    data : Latents
        With captions that describe their latents in full.
    pairs : sequence of (str, str)
        Target and source stream, one pair a step in turns; all targets share one network.
    """

    often_noisy = True

    def __init__(self, diffuser: Diffuser, text_encoder: TextEncoder, data: Latents, pairs: Sequence[tuple[str, str]]):
        super().__init__(diffuser, text_encoder, data, tuple(dict.fromkeys(m for pair in pairs for m in pair)))
        self.pairs = tuple(pairs)
        self.name = f"distillation_{pairs[0][0]}"
        diffuser.requires_grad_(False)
        (self.network,) = {modality(target).network for target, _ in pairs}
        for part in connectors(diffuser.networks[self.network]):
            part.requires_grad_(True)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        turn, number = divmod(step, len(self.pairs))
        target, source = self.pairs[number]
        if target == "image" and self.pairs[0][0] == "video":
            size *= IMAGES_PER_VIDEO
        batch = self.data.batch(step, size, seed, (target, source), self.prompts, leave_out=0.75, empty=0.1)
        return batch | {"target": [target] * size, "num_sources": [1 + turn % _MOST_SOURCES] * size}

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noisy, noise, timesteps = self.noised(batch, generator)
        context = self.context(batch, generator)
        target = batch["target"][0]
        (source,) = noisy.keys() - {target}
        with torch.no_grad():
            latent = batch[source].to(noise[source])
            sources = [self._source(source, latent, timesteps, generator) for _ in range(batch["num_sources"][0])]
            described = self.embed(batch["described"])
            teacher = self.diffuser({target: noisy[target]}, timesteps, described, alignment="none")[target]
        predicted = self._predict(noisy[target], timesteps, context, sources)
        distillation, error = (self.error(predicted, aim, timesteps) for aim in (teacher, noise[target]))
        timed = all(modality(name).time_axis is not None for name in noisy)
        figures = {f"{source} to {target}": float(distillation.detach())}
        if timed:
            return _TIMED_DISTILLATION * distillation + (1 - _TIMED_DISTILLATION) * error, figures
        return distillation, figures

    def _source(self, source: str, latent: Tensor, target_timesteps: Tensor, generator: torch.Generator) -> Tensor:
        """Environment tokens of a source stream with noise of its own."""
        timesteps = source_timesteps(target_timesteps, generator)
        noise = torch.randn(latent.shape, generator=generator).to(latent)
        noisy = add_noise(latent, noise, timesteps, self.alphas)
        return self.diffuser.environment({source: noisy}, timesteps)[source]

    def _predict(self, noisy: Tensor, timesteps: Tensor, context: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """The predicted noise of the target stream; `Diffuser` itself takes each source once only."""
        network, config = self.diffuser.networks[self.network], self.diffuser.config
        weighted = [(tokens, 1.0) for tokens in sources]
        predicted = network(noisy, network.time_embed(timesteps, noisy.dtype), context, weighted, 1.0)
        return eps_from_v(predicted, noisy, timesteps) if config.prediction == "v" else predicted
