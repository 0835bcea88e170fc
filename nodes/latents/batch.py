"""The stock nodes for batches, for joint latents."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...codi_backend.checks.numbers import require_whole
from ..runtime.growing_inputs import connected, growing
from ..runtime.latent_packing import samples_of, split, split_masks, whole_mask, with_masks
from ..runtime.stream_masks import has_rows, select_rows, sized
from ..runtime.types import CATEGORY
from .empty import MAX_BATCH

MAX_LATENTS = 10


class CoDiRepeatLatentBatch(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiRepeatLatentBatch",
            display_name="CoDi Repeat Latent Batch",
            category=f"{CATEGORY}/latent",
            description="Repeat Latent Batch for joint latents of any models: repeats all streams and their masks.",
            search_aliases=["repeat latent batch", "duplicate latent", "joint latent", "nested latent", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent of one or more streams."),
                io.Int.Input("amount", default=1, min=1, max=MAX_BATCH, tooltip="How often the batch is repeated."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The repeated batch.")],
        )

    @classmethod
    def execute(cls, samples, amount) -> io.NodeOutput:
        count = batch_size_of(samples)
        amount = require_whole(amount, "amount", 1, MAX_BATCH)
        result = select_rows(samples, list(range(count)) * amount)
        if indices := samples.get("batch_index"):
            # As the stock node: so that samples do not get the same noise.
            offset = max(indices) - min(indices) + 1
            result["batch_index"] = [index + i * offset for i in range(amount) for index in indices]
        return io.NodeOutput(result)


class CoDiLatentFromBatch(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiLatentFromBatch",
            display_name="CoDi Latent From Batch",
            category=f"{CATEGORY}/latent",
            description="Latent From Batch for joint latents of any models: some samples of a batch, with all streams.",
            search_aliases=["latent from batch", "select from batch", "joint latent", "nested latent", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A batch of latents of one or more streams."),
                io.Int.Input(
                    "batch_index",
                    default=0,
                    min=-MAX_BATCH,
                    max=MAX_BATCH,
                    tooltip="Number of the first sample, from 0. Negative numbers count from the end.",
                ),
                io.Int.Input("length", default=1, min=1, max=MAX_BATCH, tooltip="How many samples."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The samples with all their streams and masks.")],
        )

    @classmethod
    def execute(cls, samples, batch_index, length) -> io.NodeOutput:
        count = batch_size_of(samples)
        batch_index = require_whole(batch_index, "batch_index", -MAX_BATCH, MAX_BATCH)
        length = require_whole(length, "length", 1, MAX_BATCH)
        first = max(0, min(count - 1, batch_index + count if batch_index < 0 else batch_index))
        rows = list(range(first, min(count, first + length)))
        # Recorded, so that a sample gets the noise that it has in its batch.
        return io.NodeOutput({"batch_index": rows} | select_rows(samples, rows))


class CoDiBatchLatents(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiBatchLatents",
            display_name="CoDi Batch Latents",
            category=f"{CATEGORY}/latent",
            description="Batch Latents for joint latents of any models: batches latents of the same streams.",
            search_aliases=["batch latents", "latent batch", "joint latent", "nested latent", "stack", "codi"],
            inputs=[
                growing(
                    "latents",
                    io.Latent.Input("latent", tooltip="A latent with the same streams as the others."),
                    MAX_LATENTS,
                    "Latents with the same streams, of the same sizes.",
                    least=2,
                )
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="All samples with their masks.")],
        )

    @classmethod
    def execute(cls, latents: io.Autogrow.Type) -> io.NodeOutput:
        found = connected("latents", "latent", MAX_LATENTS, latents, "batch")
        first, *_ = given = list(found.values())
        counts = [batch_size_of(latent, "latents") for latent in given]
        shapes = [[list(stream.shape[1:]) for stream in split(latent["samples"])] for latent in given]
        for name, shape in zip(found, shapes):
            if shape != shapes[0]:
                raise ValueError(
                    f"latents: {name} has streams of shapes {_listed(shape)}, and {next(iter(found))} of "
                    f"{_listed(shapes[0])}; connect latents of the same sizes."
                )
        by_stream = list(zip(*(split(latent["samples"]) for latent in given)))
        masks = [_batched(*rows) for rows in zip(by_stream, zip(*map(split_masks, given)))]
        result = with_masks(first, [torch.cat([z.to(zs[0].device) for z in zs]) for zs in by_stream], masks)
        numbers = [latent.get("batch_index", range(count)) for latent, count in zip(given, counts)]
        result["batch_index"] = [index for some in numbers for index in some]
        return io.NodeOutput(result)


def batch_size_of(latent: dict, source: str = "samples") -> int:
    """The batch size of a LATENT. `ValueError` about the input `source` if it is empty or its streams differ."""
    counts = {len(stream) for stream in split(samples_of(latent, source))}
    if len(counts) > 1 or 0 in counts:
        sizes = ", ".join(map(str, sorted(counts)))
        raise ValueError(f"{source}: the streams have batch sizes {sizes}; connect a latent whose sizes are equal.")
    return counts.pop()


def _batched(streams: tuple[Tensor, ...], masks: tuple[Tensor | None, ...]) -> Tensor | None:
    """The mask of the batch of a stream; None if no part of it has one."""
    if all(mask is None for mask in masks):
        return None
    first = masks[0]
    if first is not None and not any(map(has_rows, masks, streams)):
        if all(mask is not None and torch.equal(mask, first) for mask in masks):
            return first
    rows = [
        sized(whole_mask(stream, 1.0) if mask is None else mask, stream).to(streams[0].device, torch.float32)
        for mask, stream in zip(masks, streams)
    ]
    channels = max(mask.shape[1] for mask in rows)
    return torch.cat([mask.expand(-1, channels, *mask.shape[2:]) for mask in rows])


def _listed(shapes: list[list[int]]) -> str:
    return ", ".join(map(str, shapes))
