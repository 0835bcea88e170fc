"""Stage 4, last: streams learn to follow others as surely as they follow a prompt (paper section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..diffuser import Diffuser
from ..diffusion import add_noise, eps_from_v
from ..modality import modality
from ..prompts import TextEncoder
from .alignment import speaking_times
from .diffusers import PICTURES_PER_VIDEO, DiffusionStage, Latents, connectors

_VOICES = 3
_TIMED_LESSON = 0.25


class ListeningStage(DiffusionStage):
    """The connectors of one network learn from streams that already speak the common language.

    The environment encoders, which `AlignmentStage` has taught, are frozen like all else, so what one network learns
    here changes nothing that another one hears, and only the listener has to be differentiated. The target is what the
    listener itself predicts from the full description. When something happens no description says: of two streams with
    time the listener learns from the noise mostly, since what it settles on lies between both targets by their weights.
    Noise levels and captions are as in `AlignmentStage`.

    A batch hears one, two or three voices: the speaker again and again, each time through other noise and at another
    level. They stand for the company of several streams, which pairs alone could not teach, and which would otherwise
    drown the prompt: what speakers say is added up.

    Parameters
    ----------
    data : Latents
        They describe in full what their latents show.
    pairs : sequence of (str, str)
        Listener and speaker, one pair a step in turns; all listeners share one network.
    """

    often_noisy = True

    def __init__(self, diffuser: Diffuser, text_encoder: TextEncoder, data: Latents, pairs: Sequence[tuple[str, str]]):
        super().__init__(diffuser, text_encoder, data, tuple(dict.fromkeys(m for pair in pairs for m in pair)))
        self.pairs = tuple(pairs)
        self.name = f"listening_{pairs[0][0]}"
        diffuser.requires_grad_(False)
        (self.network,) = {modality(listener).network for listener, _ in pairs}
        for part in connectors(diffuser.networks[self.network]):
            part.requires_grad_(True)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        turn, number = divmod(step, len(self.pairs))
        listener, speaker = self.pairs[number]
        if listener == "image" and self.pairs[0][0] == "video":
            size *= PICTURES_PER_VIDEO
        batch = self.data.batch(step, size, seed, (listener, speaker), self.prompts, leave_out=0.75, empty=0.1)
        return batch | {"listener": [listener] * size, "voices": [1 + turn % _VOICES] * size}

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noisy, noise, timesteps = self.noised(batch, generator)
        context = self.context(batch, generator)
        listener = batch["listener"][0]
        (speaker,) = noisy.keys() - {listener}
        with torch.no_grad():
            said = batch[speaker].to(noise[speaker])
            voices = [self._voice(speaker, said, timesteps, generator) for _ in range(batch["voices"][0])]
            shown = self.embed(batch["described"])
            taught = self.diffuser({listener: noisy[listener]}, timesteps, shown, alignment="none")[listener]
        predicted = self._predict(noisy[listener], timesteps, context, voices)
        lesson, error = (self.error(predicted, target, timesteps) for target in (taught, noise[listener]))
        timed = all(modality(name).time_axis is not None for name in noisy)
        figures = {f"{speaker} to {listener}": float(lesson.detach())}
        return _TIMED_LESSON * lesson + (1 - _TIMED_LESSON) * error if timed else lesson, figures

    def _voice(self, speaker: str, latent: Tensor, heard_at: Tensor, generator: torch.Generator) -> Tensor:
        """Environment tokens of a stream through noise of their own."""
        timesteps = speaking_times(heard_at, generator)
        noise = torch.randn(latent.shape, generator=generator).to(latent)
        spoken = add_noise(latent, noise, timesteps, self.alphas)
        return self.diffuser.environment({speaker: spoken}, timesteps)[speaker]

    def _predict(self, noisy: Tensor, timesteps: Tensor, context: Tensor, voices: Sequence[Tensor]) -> Tensor:
        """The noise in the listener; `Diffuser` knows each stream but once."""
        network, config = self.diffuser.networks[self.network], self.diffuser.config
        weight = 1 / len(voices) if config.listen == "mean" else 1.0
        heard = [(tokens, weight) for tokens in voices]
        predicted = network(noisy, network.time_embed(timesteps, noisy.dtype), context, heard, 1.0)
        return eps_from_v(predicted, noisy, timesteps) if config.prediction == "v" else predicted
