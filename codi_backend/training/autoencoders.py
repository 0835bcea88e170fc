"""Stage 1: the image KL-VAE and the mel VAE."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import CoDiConfig
from ..models.autoencoders import AudioAutoencoder, ImageAutoencoder
from .loop import Stage
from .scenes import SHAPES_AND_CHIMES
from .training_data import TrainingData


class AutoencoderStage(Stage):
    """Reconstruction (L1) plus a little of the KL divergence, on images or log-mels."""

    def __init__(
        self, config: CoDiConfig, modality: str, data: TrainingData = SHAPES_AND_CHIMES, kl_weight: float = 3e-4
    ):
        super().__init__()
        self.data = data
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
        return self.data.contents(self.modality, step, size, seed)["contents"]

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
