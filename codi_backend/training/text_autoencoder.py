"""Stage 1 for text: the small Optimus."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import CoDiConfig
from ..models.autoencoders import TextAutoencoder
from .loop import Stage
from .scenes import SHAPES_AND_CHIMES
from .training_data import TrainingData


class TextAutoencoderStage(Stage):
    """Cross entropy of a text's tokens given a sample of its posterior, plus the KL divergence.

    Parameters
    ----------
    config : CoDiConfig
        Its text autoencoder must list its words; `ValueError` otherwise.
    data : TrainingData
    free_nats : float
        Divergence per dimension that costs nothing. It keeps all dimensions in use, and posteriors so wide that a
        text changes only after a large change of its latent.
    """

    name = "autoencoder_text"

    def __init__(self, config: CoDiConfig, data: TrainingData = SHAPES_AND_CHIMES, free_nats: float = 0.5):
        super().__init__()
        self.data = data
        if config.text_autoencoder is None or config.text_autoencoder.words is None:
            raise ValueError("There is no text autoencoder to train: give TextAutoencoderConfig a list of words.")
        self.autoencoder = TextAutoencoder(config.text_autoencoder)
        self.free_nats = free_nats
        _shrink_embeddings(self.autoencoder)

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Ids for the encoder ``[B, L]`` and for the decoder ``[B, N]``."""
        texts = self.data.texts(step, size, seed)
        words = self.autoencoder.vocabulary
        return words.tokenize(texts), words.targets(texts)

    def forward(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        ids, targets = batch
        mean, log_variance = self.autoencoder.posterior(ids)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        logits = self.autoencoder.logits(mean + noise * (log_variance / 2).exp(), targets[:, :-1])
        padding = self.autoencoder.vocabulary.padding
        entropy = F.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=padding, reduction="sum")
        entropy = entropy / len(ids)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
        loss = entropy + F.relu(kl - self.free_nats).sum(1).mean()
        return loss, {"cross_entropy": float(entropy.detach()), "kl": float(kl.detach().sum(1).mean())}


@torch.no_grad()
def _shrink_embeddings(autoencoder: TextAutoencoder) -> None:
    """Scale embeddings to unit length: those of the decoder are its output layer too."""
    for module in autoencoder.modules():
        if isinstance(module, nn.Embedding):
            module.weight.mul_(module.embedding_dim**-0.5)
