"""Contents to the latents that training stores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..modalities import modality
from ..pipeline import CoDi


@torch.inference_mode()
def stored_latents(codi: CoDi, name: str, contents: Any) -> Tensor:
    """Scaled latents (unit variance, as the diffuser sees them) in half precision on the CPU.

    `contents` are as for `CoDi.encode`, audio at the model's own rate.
    """
    autoencoder = codi.autoencoders[modality(name).network]
    if torch.is_tensor(contents):
        contents = contents.to(next(autoencoder.parameters()).device)
    latents = _video_latents(codi, contents) if name == "video" else codi.encode(name, contents)
    return (latents * autoencoder.config.scale_factor).half().cpu().clone()


def _video_latents(codi: CoDi, videos: Tensor) -> Tensor:
    """Like ``codi.encode("video", videos)``; a frame that equals the one before it is encoded once."""
    frames = videos.transpose(1, 2).flatten(0, 1)
    changed = torch.ones(len(frames), dtype=torch.bool, device=frames.device)
    changed[1:] = (frames[1:] != frames[:-1]).flatten(1).any(1)
    z = codi.encode("image", frames[changed])[changed.cumsum(0) - 1]
    return z.unflatten(0, (len(videos), -1)).transpose(1, 2)
