"""The noise mask of one stream of a joint latent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn import functional as F

from ...codi_backend.checks.numbers import require_finite, require_number
from ..runtime.joint_latents import names_of_streams, number_of
from ..runtime.latent_packing import require_content, samples_of, split, split_masks, whole_mask, with_masks
from ..runtime.stream_axes import parse_axes, time_axis, time_grid
from ..runtime.types import CATEGORY


class CoDiSetStreamMask(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSetStreamMask",
            display_name="CoDi Set Stream Mask",
            category=f"{CATEGORY}/latent",
            description="Sets the noise mask of one stream of a joint latent, by places, by time or both. Generates a "
            "part of a stream, and keeps the rest.",
            search_aliases=[
                "set latent noise mask",
                "inpaint",
                "extend video",
                "joint latent",
                "nested latent",
                "codi",
            ],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent of one or more streams."),
                io.String.Input("stream", default="1", tooltip="Number or name of the stream, such as 2 or audio."),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the duration at which the generated part begins. What is before is kept.",
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the duration at which the generated part ends. What is after is kept.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 is generated, 0 is kept. Several masks are the frames of a video, the times of audio, "
                    "or the images of a batch. Of a single mask for audio, columns are times.",
                ),
                io.String.Input(
                    "axes",
                    default="",
                    optional=True,
                    tooltip="Axes of each stream after the channels, such as THW, TF: T time, F frequency, H and W "
                    "places. Empty: from the shapes.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The same latent. Masks of other streams are kept.")
            ],
        )

    @classmethod
    def execute(cls, samples, stream, start, end, mask=None, axes="") -> io.NodeOutput:
        streams = split(samples_of(samples))
        index, names = number_of(stream, samples, "stream"), names_of_streams(samples)
        chosen, axes = streams[index], parse_axes(axes, [z.shape for z in streams])[index]
        require_content(chosen.shape, "samples")
        start, end = require_number(start, "start", 0, 1), require_number(end, "end", 0, 1)
        if start >= end:
            raise ValueError("start: it is not below end, so nothing would be generated; choose a smaller one.")
        partly = (start, end) != (0, 1)
        if partly and "T" not in axes:
            raise ValueError(
                f"stream: {names[index]} has no time; set start to 0 and end to 1, or choose another stream."
            )
        result = whole_mask(chosen, 1.0) if mask is None else _placed(mask, chosen, axes, names[index])
        if partly:
            window = torch.tensor(time_grid(chosen.shape, axes).within(start, end), dtype=result.dtype)
            if not window.any():
                raise ValueError("end: no step lies between start and end; choose a larger one.")
            axis = time_axis(axes)
            result = result * window.to(result.device).reshape([-1 if i == axis else 1 for i in range(result.ndim)])
        masks = split_masks(samples)
        masks[index] = result
        return io.NodeOutput(with_masks(samples, streams, masks))


def _placed(mask: Tensor, stream: Tensor, axes: str, name: str) -> Tensor:
    """A MASK ``[N, H, W]`` in the axes and the size of a stream ``[B, C, ...]``, with one channel."""
    if not torch.is_tensor(mask) or mask.ndim not in (2, 3) or 0 in mask.shape:
        raise ValueError("mask: this is no mask with content; connect one.")
    require_finite(mask, "mask: it", "connect another", 1.0)
    mask, extent = mask.float().reshape(-1, *mask.shape[-2:]), tuple(stream.shape[2:])
    if axes == "":
        raise ValueError(f"stream: {name} has no places or times that a mask could choose; use CoDi Hold Streams.")
    if axes == "HW":
        if len(mask) not in (1, len(stream)):
            raise ValueError(
                f"mask: there are {len(mask)} masks for {len(stream)} images; connect one for each, or one."
            )
        return F.interpolate(mask[:, None], extent, mode="bilinear")
    edges = time_grid(stream.shape, axes).edges
    if axes == "THW":
        frames = F.interpolate(mask[:, None], extent[1:], mode="bilinear")[:, 0]
        return _at_steps(frames, edges)[None, None]
    times = _at_steps(mask.mean((1, 2)) if len(mask) > 1 else mask[0].mean(0), edges)
    axis = time_axis(axes)
    return times.reshape([-1 if i == axis else 1 for i in range(stream.ndim)]).expand(1, 1, *extent).clone()


def _at_steps(frames: Tensor, edges: Sequence[float]) -> Tensor:
    """The means of frames ``[N, ...]`` over each step of a stream, ``[T, ...]``; `edges` are shares of the duration."""
    count, rounding = len(frames), 1e-6
    bounds = [(math.floor(a * count + rounding), math.ceil(b * count - rounding)) for a, b in pairwise(edges)]
    return torch.stack([frames[first:stop].mean(0) for first, stop in bounds])
