"""Joining and splitting of joint latents with their masks, and held streams. The streams may be of any models."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..runtime.growing_inputs import growing, numbered
from ..runtime.joint_latents import joined, numbers_of, one_stream, records_of
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

# Splitting and coupling have as many sockets.
MAX_STREAMS = 6
# Channels of CoDi's own latents, in the published models and in the built-in one.
IMAGE_CHANNELS, AUDIO_CHANNELS = 4, 8


def _kind(stream: Tensor) -> str | None:
    """The modality that a stream of CoDi's would have, from its shape alone: there is no model here."""
    channels, extent = stream.shape[1], tuple(stream.shape[2:])
    if extent == (1, 1):
        return "text"
    if channels == IMAGE_CHANNELS:
        return {2: "image", 3: "video"}.get(len(extent))
    return "audio" if channels == AUDIO_CHANNELS and len(extent) == 2 else None


class CoDiJoinLatents(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiJoinLatents",
            display_name="CoDi Join Latents",
            category=f"{CATEGORY}/latent",
            description="Joins latents of CoDi, or of any models, to one joint latent, whose streams are sampled "
            "together. Masks and other keys are kept.",
            search_aliases=["joint latent", "nested latent", "combine latents", "concat", "codi"],
            inputs=[
                growing(
                    "latents",
                    io.Latent.Input("latent", tooltip="A latent of one or more streams."),
                    MAX_STREAMS,
                    "Latents to join, all of one batch size. CoDi itself takes at most one stream of each modality.",
                    least=2,
                ),
                io.Boolean.Input(
                    "keep_order",
                    default=False,
                    optional=True,
                    tooltip="Keep the streams in the order of the sockets, as the guiders of CoDi Couple Guiders are. "
                    "If off, streams that look like CoDi's are put in its order: image, video, audio, text.",
                ),
                io.String.Input(
                    "names",
                    default="",
                    optional=True,
                    tooltip="Names of the streams in the order of the sockets, such as video, audio. Empty: their "
                    "modality, or the names that they have.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="All streams.")],
        )

    @classmethod
    def execute(cls, latents: io.Autogrow.Type, keep_order: bool = False, names: str = "") -> io.NodeOutput:
        given = [latents[name] for name in numbered("latent", MAX_STREAMS) if name in latents]
        found: list[tuple[str | None, Tensor, Tensor | None, dict]] = []
        for latent in given:
            streams = split(samples_of(latent, "latents"))
            for stream, mask, record in zip(streams, split_masks(latent), records_of(latent)):
                if stream.ndim < 3:
                    raise ValueError(
                        f"latents: a latent of shape {list(stream.shape)} has no extent; connect one of a VAE or of an "
                        "empty latent node."
                    )
                kind = _kind(stream)
                require_latent(stream, "latents", kind or f"number {len(found) + 1}")
                found.append((kind, stream, mask, record))
        for row, name in zip(found, _names(names, len(found))):
            row[-1]["name"] = name
        kinds = [kind for kind, *_ in found]
        if not keep_order and None not in kinds and len(set(kinds)) == len(kinds):
            found.sort(key=lambda row: STREAMS.index(row[0]))
        if len({len(stream) for _, stream, *_ in found}) > 1:
            sizes = ", ".join(f"{kind or number} {len(z)}" for number, (kind, z, *_) in enumerate(found, start=1))
            raise ValueError(
                f"latents: the batch sizes differ ({sizes}); make them equal, as CoDi Repeat Latent Batch does."
            )
        _, streams, masks, records = map(list, zip(*found))
        return io.NodeOutput(joined(given, streams, masks, records))


def _names(text: str, count: int) -> list[str]:
    """The names in a text such as ``video, audio``; none if it is empty. `ValueError` about the input `names`."""
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    if names and len(names) != count:
        raise ValueError(f"names: there are {len(names)} for {count} streams; give one for each, or leave it empty.")
    if strange := [name for name in names if not name or name.isdecimal()]:
        raise ValueError(f"names: {strange[0]!r} is no name; give words such as video, audio.")
    if len({name.lower() for name in names}) < len(names):
        raise ValueError("names: two streams have the same; give different ones.")
    return names


class CoDiSplitLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSplitLatent",
            display_name="CoDi Split Latent",
            category=f"{CATEGORY}/latent",
            description="Splits a joint latent into its streams, for stock latent nodes: by modality for a CoDi model, "
            "by number for any models.",
            search_aliases=["joint latent", "nested latent", "separate latents", "unjoin", "codi"],
            inputs=[
                io.Model.Input(
                    "model", optional=True, tooltip="The CoDi model, which identifies the streams by modality."
                ),
                io.Latent.Input("samples", tooltip="A latent of one or more streams."),
            ],
            outputs=[
                *(
                    io.Latent.Output(display_name=name, tooltip=f"The {name} stream with its mask, if there is one.")
                    for name in STREAMS
                ),
                *(
                    io.Latent.Output(
                        display_name=f"stream {number}", tooltip=f"Stream {number} with its mask, of any model."
                    )
                    for number in range(1, MAX_STREAMS + 1)
                ),
            ],
        )

    @classmethod
    def execute(cls, samples, model=None) -> io.NodeOutput:
        streams = split(samples_of(samples))
        parts = [one_stream(samples, index) for index in range(len(streams))]
        found = {}
        if model is not None:
            names = names_of([stream.shape for stream in streams], codi_config(model), "samples")
            found = dict(zip(names, parts))
        by_name = [found.get(name) or _absent(name, list(found)) for name in STREAMS]
        missing = [_missing(number, len(parts)) for number in range(len(parts) + 1, MAX_STREAMS + 1)]
        return io.NodeOutput(*by_name, *parts[:MAX_STREAMS], *missing)


def _absent(name: str, names: list[str]) -> ExecutionBlocker:
    if not names:
        return ExecutionBlocker(
            f"model: none is connected to tell which stream is {name}; connect a CoDi model, or use a numbered output."
        )
    return ExecutionBlocker(
        f"samples: there is no {name} stream in this latent, which holds {', '.join(names)}; "
        f"switch {name} on in CoDi Empty Latent."
    )


def _missing(number: int, count: int) -> ExecutionBlocker:
    return ExecutionBlocker(
        f"samples: there is no stream {number} in this latent of {count}; connect another output, or join more streams."
    )


class CoDiHoldStreams(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiHoldStreams",
            display_name="CoDi Hold Streams",
            category=f"{CATEGORY}/latent",
            description="Holds streams of a joint latent: they stay unchanged, and generated streams attend to them or "
            "are coupled to them. Hold a video to generate its audio.",
            search_aliases=["set latent noise mask", "inpaint", "freeze", "condition on video", "codi"],
            inputs=[
                io.Model.Input(
                    "model", optional=True, tooltip="The CoDi model, which identifies the streams by modality."
                ),
                io.Latent.Input("samples", tooltip="A latent with the streams to hold and the streams to generate."),
                *(io.Boolean.Input(name, default=False, tooltip=f"Hold the {name} stream.") for name in STREAMS),
                io.String.Input(
                    "streams",
                    default="",
                    optional=True,
                    tooltip="Numbers or names of further streams to hold, such as 1, audio. Needs no model.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The same streams with a noise mask.")],
        )

    @classmethod
    def execute(cls, samples, model=None, streams: str = "", **held: bool) -> io.NodeOutput:
        parts = split(samples_of(samples))
        names = [f"number {number}" for number in range(1, len(parts) + 1)]
        chosen = {names[index] for index in numbers_of(streams, samples, "streams")}
        wanted = [name for name in STREAMS if held[name]]
        if model is not None:
            known = names_of([part.shape for part in parts], codi_config(model), "samples")
            _require_there(wanted, known)
            chosen = {known[names.index(name)] for name in chosen} | set(wanted)
            names = known
        elif wanted:
            raise ValueError(
                f"{wanted[0]}: no model tells which stream is {wanted[0]}; connect the CoDi model, or switch this off "
                "and give the number of the stream in streams."
            )
        if len(chosen) == len(names):
            inputs = ", ".join(wanted) if len(wanted) == len(names) else "streams"
            raise ValueError(f"{inputs}: every stream is held; leave one to generate.")
        for name, part in zip(names, parts):
            if name in chosen:
                require_latent(part, "samples", name)
        masks = [
            whole_mask(part, 0.0) if name in chosen else mask
            for name, part, mask in zip(names, parts, split_masks(samples))
        ]
        return io.NodeOutput(with_masks(samples, parts, masks))


def _require_there(wanted: list[str], names: list[str]) -> None:
    for name in wanted:
        if name not in names:
            raise ValueError(
                f"{name}: there is no {name} stream to hold in this latent, which holds {', '.join(names)}; "
                "join one with CoDi Join Latents, or switch this off."
            )
