"""Stage 1: the image KL-VAE and the mel VAE."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import CoDiConfig
from ..data import ShapesAndChimes
from ..models.autoencoders import AudioAutoencoder, ImageAutoencoder
from .loop import Stage


class AutoencoderStage(Stage):
    """Reconstruction (L1) plus a little of the KL divergence, on images or log-mels of Shapes & Chimes."""

    def __init__(self, config: CoDiConfig, modality: str, kl_weight: float = 3e-4):
        super().__init__()
        self.name = f"autoencoder_{modality}"
        self.modality, self.kl_weight = modality, kl_weight
        if modality == "image":
            self.autoencoder = ImageAutoencoder(config.image_autoencoder)
        elif modality == "audio":
            self.autoencoder = AudioAutoencoder(config.audio_autoencoder)
        else:
            raise ValueError(f"There is no autoencoder to train for {modality!r}; choose image or audio.")
        self.autoencoder.to(memory_format=torch.channels_last)

    def batch(self, step: int, size: int, seed: int) -> Tensor:
        data = ShapesAndChimes((step + 1) * size, (self.modality,), seed=seed)
        return torch.stack([data[i][self.modality] for i in range(step * size, (step + 1) * size)])

    def forward(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if self.modality == "audio":
            batch = self.autoencoder.mel(batch)
        posterior = self.autoencoder.posterior(batch)
        latents = posterior.sample(generator)
        if self.modality == "audio":
            error = (self.autoencoder.decode_mel(latents) - batch).abs().mean() / self.autoencoder.config.mel_std
        else:
            error = (self.autoencoder.reconstruct(latents) - (batch * 2 - 1)).abs().mean()
        kl = posterior.kl().mean() / latents[0].numel()
        return error + self.kl_weight * kl, {"reconstruction": float(error.detach()), "kl": float(kl.detach())}
