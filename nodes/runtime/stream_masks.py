"""Noise masks of streams in the sizes that ComfyUI allows, and rows of a batch with their masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import comfy.utils
from torch import Tensor

from .latent_packing import split, split_masks, with_masks


def has_rows(mask: Tensor | None, stream: Tensor) -> bool:
    """Whether a mask has one row for each sample. A mask of fewer axes than a video has one for each frame."""
    return mask is not None and len(mask) > 1 and not mask.ndim < stream.ndim == 5


def sized(mask: Tensor, stream: Tensor) -> Tensor:
    """A mask in the size of its stream ``[B, C, ...]``, as ComfyUI's samplers size it: ``[B, 1 or C, ...]``.

    `ValueError` about the input `samples` if it does not fit.
    """
    if mask.ndim == stream.ndim and mask.shape[2:] == stream.shape[2:]:
        return comfy.utils.repeat_to_batch_size(mask, len(stream))
    if mask.ndim > stream.ndim or (stream.ndim < 4 and mask.ndim != stream.ndim):
        raise ValueError(
            f"samples: a mask of shape {list(mask.shape)} does not fit a stream of shape {list(stream.shape)}; set it "
            "with CoDi Set Stream Mask."
        )
    channels = mask.shape[1] if mask.ndim == stream.ndim else 1
    return comfy.utils.reshape_mask(mask.float(), stream.shape)[:, :channels]


def select_rows(latent: dict, rows: Sequence[int]) -> dict:
    """A copy of a LATENT of some samples of its batch, with all streams and masks; rows may repeat.

    `batch_index` is selected, too, if there is one.
    """
    streams, masks, rows = split(latent["samples"]), split_masks(latent), list(rows)

    def of_mask(mask: Tensor | None, stream: Tensor) -> Tensor | None:
        if not has_rows(mask, stream):
            return mask
        times = math.ceil(len(stream) / len(mask))
        return mask.repeat(times, *[1] * (mask.ndim - 1))[rows]

    chosen = [of_mask(mask, stream) for mask, stream in zip(masks, streams)]
    result = with_masks(latent, [stream[rows] for stream in streams], chosen)
    if "batch_index" in latent:
        result["batch_index"] = [latent["batch_index"][row] for row in rows]
    return result


def cut(mask: Tensor | None, stream: Tensor, axis: int, start: int, stop: int) -> Tensor | None:
    """The part of a mask that belongs to the steps `start` to `stop` of its stream along `axis`."""
    if mask is None or (mask.ndim == stream.ndim and mask.shape[axis] == 1):
        return mask
    if mask.ndim != stream.ndim or mask.shape[axis] != stream.shape[axis]:
        mask = sized(mask, stream)
    return mask.narrow(axis, start, stop - start)
