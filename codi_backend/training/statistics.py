"""Scale factors and means of latents, measured after an autoencoder is trained."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from ..config import CoDiConfig
from ..modalities import MODALITIES
from .training_data import TrainingData

_MEASURED = 512  # contents
_CHUNK = 64

# Standard deviation of scaled latents, 1 elsewhere. At equal noise a text is thus more readable than an image: texts
# settle early, and images, which settle late, can still follow them.
SPREAD = {"text": 2.0}


@torch.inference_mode()
def with_statistics(config: CoDiConfig, network: str, autoencoder: nn.Module, data: TrainingData) -> CoDiConfig:
    """Set the scale factor that gives the latents of some contents their `SPREAD`, and the means of scaled latents."""
    place = next(autoencoder.parameters()).device
    means = dict(config.diffuser.latent_means)
    for name in (name for name, row in MODALITIES.items() if row.network == network):  # image before video
        if name == "video" and not config.diffuser.networks[network].temporal:
            continue
        items = data.sample(name, _MEASURED)
        chunks = [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]
        latents = torch.cat([autoencoder.encode(c if name == "text" else c.to(place)) for c in chunks])
        if name == network:
            scale_factor = round(SPREAD.get(name, 1.0) / float(latents.std()), 4)
        mean = scale_factor * latents.transpose(0, 1).flatten(1).mean(1)
        means[name] = tuple(round(value, 4) for value in mean.tolist())
    field = f"{network}_autoencoder"
    return dataclasses.replace(
        config,
        diffuser=dataclasses.replace(config.diffuser, latent_means=means),
        **{field: dataclasses.replace(getattr(config, field), scale_factor=scale_factor)},
    )
