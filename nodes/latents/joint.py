"""Joining and splitting of joint latents with their masks, and held streams."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..runtime.growing_inputs import growing
from ..runtime.latent_packing import (
    STREAMS,
    names_of,
    require_latent,
    samples_of,
    split,
    split_masks,
    whole_mask,
    with_masks,
)
from ..runtime.types import CATEGORY
from .empty import codi_config

IMAGE_CHANNELS = 4


def _kind(stream: Tensor) -> str:
    """The probable modality of a stream, from its shape alone: there is no model here."""
    if stream.ndim == 5:
        return "video"
    if stream.ndim != 4:
        raise ValueError(
            f"latents: a latent of shape {list(stream.shape)} is none of CoDi's; "
            "connect latents from the CoDi encode nodes or CoDi Empty Latent."
        )
    if tuple(stream.shape[2:]) == (1, 1):
        return "text"
    return "image" if stream.shape[1] == IMAGE_CHANNELS else "audio"


class CoDiJoinLatents(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiJoinLatents",
            display_name="CoDi Join Latents",
            category=f"{CATEGORY}/latent",
            description="Joins latents to one joint latent, whose streams are sampled together. Masks are kept.",
            search_aliases=["joint latent", "nested latent", "combine latents", "concat", "codi"],
            inputs=[
                growing(
                    "latents",
                    io.Latent.Input("latent", tooltip="A latent of one or more streams, each of another modality."),
                    len(STREAMS),
                    "Latents to join: at most one stream of each modality, all of one batch size.",
                    least=2,
                )
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="All streams, image first and text last.")],
        )

    @classmethod
    def execute(cls, latents: io.Autogrow.Type) -> io.NodeOutput:
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for latent in latents.values():
            for stream, mask in zip(split(samples_of(latent, "latents")), split_masks(latent)):
                kind = _kind(stream)
                if kind in found:
                    raise ValueError(f"latents: there are two {kind} streams; connect one of each modality.")
                require_latent(stream, "latents", kind)
                found[kind] = stream, mask
        if len({len(stream) for stream, _ in found.values()}) > 1:
            sizes = ", ".join(f"{kind} {len(stream)}" for kind, (stream, _) in found.items())
            raise ValueError(
                f"latents: the batch sizes differ ({sizes}); make them equal, as Repeat Latent Batch does."
            )
        streams, masks = zip(*(found[kind] for kind in STREAMS if kind in found))
        first = next(iter(latents.values()))
        return io.NodeOutput(with_masks(first, list(streams), list(masks)))


class CoDiSplitLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSplitLatent",
            display_name="CoDi Split Latent",
            category=f"{CATEGORY}/latent",
            description="Splits a joint latent into its streams, for stock latent nodes.",
            search_aliases=["joint latent", "nested latent", "separate latents", "unjoin", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="The CoDi model, which identifies the streams."),
                io.Latent.Input("samples", tooltip="A latent of one or more streams."),
            ],
            outputs=[
                io.Latent.Output(display_name=name, tooltip=f"The {name} stream with its mask, if there is one.")
                for name in STREAMS
            ],
        )

    @classmethod
    def execute(cls, model, samples) -> io.NodeOutput:
        streams, masks = split(samples_of(samples)), split_masks(samples)
        names = names_of([stream.shape for stream in streams], codi_config(model), "samples")
        found = {name: with_masks(samples, [z], [mask]) for name, z, mask in zip(names, streams, masks)}
        return io.NodeOutput(*(found.get(name) or _absent(name, names) for name in STREAMS))


def _absent(name: str, names: list[str]) -> ExecutionBlocker:
    return ExecutionBlocker(
        f"samples: there is no {name} stream in this latent, which holds {', '.join(names)}; "
        f"switch {name} on in CoDi Empty Latent."
    )


class CoDiHoldStreams(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiHoldStreams",
            display_name="CoDi Hold Streams",
            category=f"{CATEGORY}/latent",
            description="Holds streams of a joint latent: they stay unchanged, and generated streams attend to them. "
            "Hold a video to generate its audio.",
            search_aliases=["set latent noise mask", "inpaint", "freeze", "condition on video", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="The CoDi model, which identifies the streams."),
                io.Latent.Input("samples", tooltip="A latent with the streams to hold and the streams to generate."),
                *(io.Boolean.Input(name, default=False, tooltip=f"Hold the {name} stream.") for name in STREAMS),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The same streams with a noise mask.")],
        )

    @classmethod
    def execute(cls, model, samples, **held: bool) -> io.NodeOutput:
        streams = split(samples_of(samples))
        names = names_of([stream.shape for stream in streams], codi_config(model), "samples")
        for name in STREAMS:
            if held[name] and name not in names:
                raise ValueError(
                    f"{name}: there is no {name} stream to hold in this latent, which holds {', '.join(names)}; "
                    "join one with CoDi Join Latents, or switch this off."
                )
        if all(held[name] for name in names):
            raise ValueError(f"{', '.join(names)}: every stream is held; leave one to generate.")
        for name, stream in zip(names, streams):
            if held[name]:
                require_latent(stream, "samples", name)
        masks = [
            whole_mask(stream, 0.0) if held[name] else mask
            for name, stream, mask in zip(names, streams, split_masks(samples))
        ]
        return io.NodeOutput(with_masks(samples, streams, masks))
