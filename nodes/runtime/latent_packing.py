"""The streams of a LATENT with their modalities and masks. It holds one stream, or several in a NestedTensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ...codi_backend.checks.inputs import MAX_LATENT
from ...codi_backend.checks.numbers import require_finite
from ...codi_backend.config import CoDiConfig
from ...codi_backend.modalities import MODALITIES, Modality

# In their order in a joint latent, in which ComfyUI draws their noise.
STREAMS = ("image", "video", "audio", "text")
# ComfyUI reads the axes after the second as the extent of a latent, so a text latent [B, D] becomes [B, D, 1, 1] there.
TEXT_RANK = 4


def samples_of(latent: Any, name: str = "samples") -> Tensor | NestedTensor:
    """The samples of a LATENT. `ValueError` about the node's input `name` if it holds no stream."""
    samples = latent.get("samples") if isinstance(latent, Mapping) else None
    if samples is None or not all(torch.is_tensor(stream) and stream.ndim > 1 for stream in split(samples)):
        raise ValueError(f"{name}: there is no latent in this; connect CoDi Empty Latent or a node that encodes.")
    return samples


def split(samples: Tensor | NestedTensor) -> list[Tensor]:
    """The streams of a LATENT's samples."""
    return list(samples.unbind()) if getattr(samples, "is_nested", False) else [samples]


def join(streams: list[Tensor]) -> Tensor | NestedTensor:
    """The samples of a LATENT of these streams. A single stream stays a plain tensor, as stock nodes expect."""
    return NestedTensor(streams) if len(streams) > 1 else streams[0]


def split_masks(latent: dict) -> list[Tensor | None]:
    """The noise mask of every stream of a LATENT: 1 for generated parts, 0 for kept ones; None generates all.

    A plain mask of several streams belongs to the first one, as in ComfyUI's samplers.
    """
    count, mask = len(split(latent["samples"])), latent.get("noise_mask")
    masks = [] if mask is None else split(mask)[:count]
    return [*masks, *[None] * (count - len(masks))]


def with_masks(latent: dict, streams: list[Tensor], masks: list[Tensor | None]) -> dict:
    """A copy of a LATENT with these streams and masks; streams without a mask get one of ones if others have one."""
    result = {key: value for key, value in latent.items() if key != "noise_mask"} | {"samples": join(streams)}
    if any(mask is not None for mask in masks):
        full = [whole_mask(stream, 1.0) if mask is None else mask for stream, mask in zip(streams, masks)]
        result["noise_mask"] = join(full)
    return result


def whole_mask(stream: Tensor, value: float) -> Tensor:
    """A noise mask of one value and the size of a stream."""
    return torch.full((1, 1, *stream.shape[2:]), value, device=stream.device)


def is_modality(shape: Sequence[int], modality: Modality, channels: int) -> bool:
    """Whether the shape of a stream is that of a modality with so many latent channels."""
    if len(shape) < 2 or shape[1] != channels:
        return False
    if modality.name == "text":
        return len(shape) == TEXT_RANK and tuple(shape[2:]) == (1, 1)
    return len(shape) == modality.latent_rank


def modality_of(shape: Sequence[int], config: CoDiConfig, source: str = "latent_image") -> Modality:
    """The modality of a stream, by its rank and channels.

    `ValueError` about the node's input `source` if the model has no network for such a latent.
    """
    networks = config.diffuser.networks
    for row in MODALITIES.values():
        if row.network in networks and is_modality(shape, row, networks[row.network].in_channels):
            return row
    raise ValueError(
        f"{source}: a latent of shape {list(shape)} is none that the model {config.name!r} denoises; "
        "connect CoDi Empty Latent with this model."
    )


def names_of(shapes: Sequence[Sequence[int]], config: CoDiConfig, source: str = "latent_image") -> list[str]:
    """The modality of each stream. `ValueError` if two have the same."""
    names = [modality_of(shape, config, source).name for shape in shapes]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{source}: the latent holds two {repeated[0]} streams; join at most one stream of each modality."
        )
    return names


def to_backend(latent: Tensor, name: str) -> Tensor:
    """A stream in the shape of `codi_backend`: text latents lose their unit axes."""
    return latent.flatten(1) if name == "text" else latent


def from_backend(latent: Tensor, name: str) -> Tensor:
    """A stream in the shape of ComfyUI: text latents get two unit axes."""
    return latent[:, :, None, None] if name == "text" else latent


def require_content(shape: Sequence[int], name: str) -> None:
    """`ValueError` about the node's input `name` if a stream of this shape is empty."""
    if 0 in shape:
        raise ValueError(f"{name}: this latent is empty, with shape {list(shape)}; connect one with a sample in it.")


def require_latent(stream: Tensor, name: str, kind: str) -> None:
    """`ValueError` about the node's input `name` if a stream's values are no floats, not finite or too large."""
    if not stream.is_floating_point():
        raise ValueError(
            f"{name}: the {kind} latent is of type {str(stream.dtype).removeprefix('torch.')}; connect one of floats."
        )
    remedy = "lower cfg, or start ComfyUI with --fp32-unet if the model ran in half precision"
    require_finite(stream, f"{name}: the {kind} latent", remedy, MAX_LATENT)


def find(samples: Tensor | NestedTensor, name: str, channels: int) -> Tensor:
    """The stream of a modality in a node's `samples` input, checked.

    `ValueError` if it is missing, empty or holds values that are no latent's.
    """
    found = [stream for stream in split(samples) if is_modality(stream.shape, MODALITIES[name], channels)]
    if not found:
        shapes = ", ".join(str(list(stream.shape)) for stream in split(samples))
        raise ValueError(
            f"samples: there is no {name} stream of {channels} channels in this latent (it holds {shapes}); "
            f"switch {name} on in CoDi Empty Latent, and use the decoder of the same checkpoint."
        )
    require_content(found[0].shape, "samples")
    require_latent(found[0], "samples", name)
    return found[0]
