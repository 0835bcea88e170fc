"""Which modality a latent is. Inside ComfyUI a LATENT holds one stream, or several in a NestedTensor."""

from __future__ import annotations

import torch
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ..codi_backend.config import CoDiConfig
from ..codi_backend.modality import MODALITIES, Modality

# ComfyUI reads the axes after the second as the extent of a latent, so a text latent [B, D] becomes [B, D, 1, 1] there.
TEXT_RANK = 4


def split(samples: Tensor | NestedTensor) -> list[Tensor]:
    """The streams of a LATENT's samples."""
    return list(samples.unbind()) if samples.is_nested else [samples]


def join(streams: list[Tensor]) -> Tensor | NestedTensor:
    """The samples of a LATENT; a single stream stays a plain tensor, as stock nodes expect it."""
    return NestedTensor(streams) if len(streams) > 1 else streams[0]


def is_modality(latent: Tensor, modality: Modality, channels: int) -> bool:
    """Whether a stream is of a modality whose latents have so many channels."""
    if latent.ndim < 2 or latent.shape[1] != channels:
        return False
    if modality.name == "text":
        return latent.ndim == TEXT_RANK and tuple(latent.shape[2:]) == (1, 1)
    return latent.ndim == modality.latent_rank


def modality_of(latent: Tensor, config: CoDiConfig) -> Modality:
    """The modality of a stream, told from its rank and channels.

    `ValueError` when the model has no diffuser for such a latent.
    """
    networks = config.diffuser.networks
    for row in MODALITIES.values():
        if row.network in networks and is_modality(latent, row, networks[row.network].in_channels):
            return row
    raise ValueError(
        f"latent_image: a latent of shape {list(latent.shape)} is none that the model {config.name!r} denoises; "
        "connect CoDi Empty Latent with this model."
    )


def by_modality(streams: list[Tensor], config: CoDiConfig) -> dict[str, Tensor]:
    """Streams by modality name, in their order. `ValueError` when two are of one modality."""
    named = {}
    for stream in streams:
        name = modality_of(stream, config).name
        if name in named:
            raise ValueError(
                f"latent_image: the latent holds two {name} streams; join at most one stream of each modality."
            )
        named[name] = stream
    return named


def to_backend(latent: Tensor, name: str) -> Tensor:
    return latent.flatten(1) if name == "text" else latent


def from_backend(latent: Tensor, name: str) -> Tensor:
    return latent[:, :, None, None] if name == "text" else latent


def scale_factor(name: str, config: CoDiConfig) -> float:
    """Diffuser latents are this factor times the autoencoder's latents, which is what a LATENT carries."""
    autoencoder = {
        "text": config.text_autoencoder,
        "image": config.image_autoencoder,
        "video": config.image_autoencoder,
        "audio": config.audio_autoencoder,
    }.get(name)
    return 1.0 if autoencoder is None else autoencoder.scale_factor


def find(samples: Tensor | NestedTensor, name: str, channels: int) -> Tensor:
    """The stream of a modality out of a node's `samples` input, checked for NaN.

    `ValueError` when it is not there or not finite.
    """
    found = [stream for stream in split(samples) if is_modality(stream, MODALITIES[name], channels)]
    if not found:
        shapes = ", ".join(str(list(stream.shape)) for stream in split(samples))
        raise ValueError(
            f"samples: there is no {name} stream of {channels} channels in this latent (it holds {shapes}); "
            f"switch {name} on in CoDi Empty Latent, and use the decoder of the same checkpoint."
        )
    if not torch.isfinite(found[0]).all():
        raise ValueError(
            f"samples: the {name} latent has values that are not finite; "
            "lower cfg, or start ComfyUI with --fp32-unet if the model ran in half precision."
        )
    return found[0]
