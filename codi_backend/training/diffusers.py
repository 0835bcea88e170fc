"""Stages 3 and 4: single diffusers, and latent alignment between them (paper sections 3.3 and 3.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffuser import Diffuser
from ..diffusion import STEPS, add_noise, alphas_cumprod
from ..modality import modality
from ..prompts import TextEncoder
from .contrast import Contrast
from .latents import SceneLatents
from .loop import Stage

_SNR_CAP = 5.0


class _DiffusionStage(Stage):
    """What both stages share: frozen prompts, one noise level for all streams, the weighted eps loss."""

    def __init__(self, diffuser: Diffuser, text_encoder: TextEncoder, data: SceneLatents, streams: tuple[str, ...]):
        super().__init__()
        self.diffuser = diffuser.to(memory_format=torch.channels_last)
        self.text_encoder = text_encoder.requires_grad_(False)
        self.data, self.streams = data, streams
        self.register_buffer("alphas", alphas_cumprod(), persistent=False)

    def _noised(
        self, batch: dict[str, Tensor | list[str]], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
        """Noisy latents, their noise, timesteps ``[B]`` and context ``[B, 1, D]``."""
        device = self.alphas.device
        size = len(batch["text"])
        timesteps = torch.randint(0, STEPS, (size,), generator=generator).to(device)
        noise = {m: torch.randn(batch[m].shape, generator=generator).to(device) for m in self.streams}
        noisy = {
            m: add_noise(batch[m].to(device), noise[m], timesteps, self.alphas).contiguous(
                memory_format=torch.channels_last
            )
            for m in self.streams
        }
        with torch.no_grad():
            context = self.text_encoder(self.text_encoder.tokenize(batch["text"]).to(device))
        return noisy, noise, timesteps, context

    def _error(self, predicted: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Squared error of the predicted noise, weighted by noise level."""
        error = F.mse_loss(predicted, noise, reduction="none").flatten(1).mean(1)
        return (self._weight(self.alphas[timesteps]) * error).mean()

    def _weight(self, alphas: Tensor) -> Tensor:
        """min(SNR, 5) / SNR, which keeps nearly clean latents from dominating (min-SNR)."""
        return (_SNR_CAP * (1 - alphas) / alphas).clamp(max=1)


class DiffuserStage(_DiffusionStage):
    """One network learns to denoise its modality from captions, with classifier-free dropout; connectors stay off.

    With `refine` it goes on from the weights that it has, which is how a network gets a second round of learning rates.
    """

    def __init__(
        self, diffuser: Diffuser, text_encoder: TextEncoder, data: SceneLatents, stream: str, refine: bool = False
    ):
        super().__init__(diffuser, text_encoder, data, (stream,))
        self.name = f"refine_{stream}" if refine else f"diffuser_{stream}"
        diffuser.requires_grad_(False)
        network = diffuser.networks[modality(stream).network].requires_grad_(True)
        for part in alignment_parts(network):
            part.requires_grad_(False)
        if not refine:
            _scale_token_values(network)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor | list[str]]:
        return self.data.batch(step, size, seed, self.streams, leave_out=0.25, empty=0.1)

    def forward(
        self, batch: dict[str, Tensor | list[str]], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        noisy, noise, timesteps, context = self._noised(batch, generator)
        predicted = self.diffuser(noisy, timesteps, context)
        (stream,) = self.streams
        return self._error(predicted[stream], noise[stream], timesteps), {}


class AlignmentStage(_DiffusionStage):
    """Latent alignment: the diffusers frozen, environment encoders and connectors learn to listen.

    The loss is the eps loss of every stream, given the others' noisy latents, plus InfoNCE between their environment
    embeddings. Captions leave more out here, since what the prompt says need not be heard from another stream.

    The eps loss is weighted by the reciprocal of the signal's share, which makes it the v loss: what streams can agree
    on is decided at high noise, where the plain eps loss is next to nothing. InfoNCE has a small weight: at high noise
    it would pull the embedding of the stream that already shows an attribute towards that of the stream that does not
    yet, and so hide what is worth hearing.
    """

    def __init__(
        self,
        diffuser: Diffuser,
        text_encoder: TextEncoder,
        data: SceneLatents,
        streams: tuple[str, ...],
        contrast_weight: float = 0.02,
    ):
        super().__init__(diffuser, text_encoder, data, streams)
        self.name = "alignment_" + "_".join(streams)
        self.contrast_weight = contrast_weight
        self.contrast = Contrast()
        diffuser.requires_grad_(False)
        for stream in streams:
            for part in alignment_parts(diffuser.networks[modality(stream).network]):
                part.requires_grad_(True)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor | list[str]]:
        return self.data.batch(step, size, seed, self.streams, leave_out=0.6, empty=0.1)

    def _weight(self, alphas: Tensor) -> Tensor:
        return 1 / alphas

    def forward(
        self, batch: dict[str, Tensor | list[str]], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        noisy, noise, timesteps, context = self._noised(batch, generator)
        environment = self.diffuser.environment(noisy, timesteps)
        predicted = self.diffuser(noisy, timesteps, context, alignment="paper", environment=environment)
        errors = {m: self._error(predicted[m], noise[m], timesteps) for m in self.streams}
        a, b = (environment[m] for m in self.streams)
        contrast = self.contrast(a, b)
        loss = sum(errors.values()) / len(errors) + self.contrast_weight * contrast
        return loss, {m: float(e.detach()) for m, e in errors.items()} | {"contrast": float(contrast.detach())}


def alignment_parts(network: nn.Module) -> tuple[nn.Module, ...]:
    """The parts that latent alignment trains, and nothing else does."""
    return network.environment_encoder, network.input_connectors, network.output_connectors


@torch.no_grad()
def _scale_token_values(network: nn.Module) -> None:
    """Prompt and environment tokens have length 1, not variance 1: start their value projections larger by sqrt(D)."""
    for name, module in network.named_modules():
        if name.endswith("attn2.to_v"):
            module.weight.mul_(math.sqrt(module.weight.shape[1]))
