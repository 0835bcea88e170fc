"""What may be coupled; every mistake is a `ValueError` that begins with the name of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_sampling
from torch import Tensor

from ...codi_backend.checks.inputs import MAX_LATENT, require_unit_range
from ...codi_backend.checks.numbers import require_finite
from .latent_packing import require_content, require_latent, split
from .noise_levels import TOLERANCE, NoiseConvention

IMAGE_TO_IMAGE = (comfy.model_sampling.IMG_TO_IMG, comfy.model_sampling.IMG_TO_IMG_FLOW)


def check_guider(guider: Any, number: int) -> None:
    """Whether a GUIDER can be coupled; `number` is that of its socket."""
    if getattr(guider, "guiders", None) is not None:
        raise ValueError(
            f"guiders: guider_{number} is itself a coupled one; connect all guiders to one CoDi Couple Guiders."
        )
    if not callable(getattr(guider, "sample", None)) or not hasattr(guider, "model_patcher"):
        raise ValueError(
            f"guiders: guider_{number} is none that samples a model of ComfyUI; connect CFGGuider or BasicGuider."
        )
    if isinstance(guider.model_patcher.get_model_object("model_sampling"), IMAGE_TO_IMAGE):
        raise ValueError(
            f"guiders: the model of guider_{number} turns images into others and has no noise levels; connect a "
            "diffusion model."
        )


def check_streams(latents: Any, noise: Any, guiders: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
    """The latent and the noise of each stream, in the shapes that the models take."""
    streams, noises = split(latents), split(noise)
    if len(streams) != len(guiders):
        count = "one stream" if len(streams) == 1 else f"{len(streams)} streams"
        raise ValueError(
            f"latent_image: this latent has {count} for {len(guiders)} guiders; join one stream for each of them with "
            "CoDi Join Latents, in their order."
        )
    for number, stream in enumerate(streams, start=1):
        require_content(stream.shape, "latent_image")
        require_latent(stream, "latent_image", f"number {number}")
    if len({len(stream) for stream in streams}) > 1:
        sizes = ", ".join(f"stream {number} {len(stream)}" for number, stream in enumerate(streams, start=1))
        raise ValueError(
            f"latent_image: the batch sizes of the streams differ ({sizes}); give all of them the same batch size."
        )
    if [z.shape for z in noises] != [z.shape for z in streams]:
        raise ValueError("noise: this does not give noise for every stream of the latent; connect RandomNoise.")
    for one in noises:
        require_finite(one, "noise: this", "connect RandomNoise", MAX_LATENT)
    pairs = []
    for number, (stream, one, guider) in enumerate(zip(streams, noises, guiders), start=1):
        expected = guider.model_patcher.get_model_object("latent_format")
        if expected.latent_channels != stream.shape[1]:
            raise ValueError(
                f"latent_image: stream {number} has {stream.shape[1]} channels, but the model of guider_{number} takes "
                f"{int(expected.latent_channels)}; connect an empty latent that is made for this model."
            )
        if expected.latent_dimensions == 3 and stream.ndim == 4:  # as the core does for a lone stream
            stream, one = stream.unsqueeze(2), one.unsqueeze(2)
        pairs.append((stream, one))
    return pairs


def check_sigmas(sigmas: Tensor, lead: NoiseConvention, number: int) -> None:
    """Whether these can be the sigmas of the lead, guider `number`."""
    require_finite(sigmas, "sigmas: this", "connect BasicScheduler")
    if lead.flow and float(sigmas.max()) > 1 + TOLERANCE:
        raise ValueError(
            f"sigmas: these begin at {float(sigmas.max()):.4g}, but the leading model, that of guider_{number}, takes "
            "at most 1; connect a scheduler with its model, or set lead to the guider whose model the scheduler has."
        )


def masks_of(mask: Any, count: int) -> list[Tensor | None]:
    """The noise mask of each stream; a plain mask belongs to the first one, as in ComfyUI's samplers."""
    masks = [] if mask is None else split(mask)[:count]
    for one in masks:
        require_unit_range(one, "latent_image: its noise mask")
    return [*masks, *[None] * (count - len(masks))]
