"""A part of the time of a joint latent."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ...codi_backend.checks.numbers import require_number
from ..runtime.joint_latents import names_of_streams, number_of
from ..runtime.latent_packing import require_content, samples_of, split, split_masks, with_masks
from ..runtime.stream_axes import TimeGrid, duration_of, parse_axes, time_axis, time_grid
from ..runtime.stream_masks import cut
from ..runtime.types import CATEGORY

SECONDS, SHARE, STEPS = UNITS = ("seconds", "share", "steps")
MAX_TIME = 100_000.0


class CoDiSliceLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiSliceLatent",
            display_name="CoDi Slice Latent in Time",
            category=f"{CATEGORY}/latent",
            description="Cuts all streams of a joint latent that have time at the same times. Streams of any models: "
            "their rates follow from equal duration.",
            search_aliases=["latent cut", "trim video latent", "trim audio", "joint latent", "nested latent", "codi"],
            inputs=[
                io.Latent.Input("samples", tooltip="A latent of one or more streams."),
                io.Combo.Input(
                    "unit",
                    options=list(UNITS),
                    default=SECONDS,
                    tooltip="Unit of start and length: seconds, share of the duration (0 to 1), or steps of a stream.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=-MAX_TIME,
                    max=MAX_TIME,
                    step=0.01,
                    tooltip="Where the part begins. Negative numbers count from the end.",
                ),
                io.Float.Input(
                    "length",
                    default=1.0,
                    min=0.0,
                    max=MAX_TIME,
                    step=0.01,
                    tooltip="How long the part is. It ends at the end of the latent at the latest.",
                ),
                io.Float.Input(
                    "duration",
                    default=0.0,
                    min=0.0,
                    max=MAX_TIME,
                    step=0.01,
                    optional=True,
                    tooltip="Seconds that the whole latent lasts, for unit seconds. 0: known for latents of LTX-2 and "
                    "MiniMax H3.",
                ),
                io.String.Input(
                    "stream",
                    default="1",
                    optional=True,
                    tooltip="Number or name of the stream whose steps are counted, for unit steps.",
                ),
                io.String.Input(
                    "axes",
                    default="",
                    optional=True,
                    tooltip="Axes of each stream after the channels, such as THW, TF: T time, F frequency, H and W "
                    "places. Empty: from the shapes.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The part, with all streams and masks.")],
        )

    @classmethod
    def execute(cls, samples, unit, start, length, duration=0.0, stream="1", axes="") -> io.NodeOutput:
        streams = split(samples_of(samples))
        for z in streams:
            require_content(z.shape, "samples")
        if unit not in UNITS:
            raise ValueError(f"unit: {unit!r} is none; choose {', '.join(UNITS)}.")
        start = require_number(start, "start", -MAX_TIME, MAX_TIME)
        length = require_number(length, "length", 0, MAX_TIME)
        shapes = [z.shape for z in streams]
        axes = parse_axes(axes, shapes)
        grids = {i: time_grid(shape, one) for i, (shape, one) in enumerate(zip(shapes, axes)) if "T" in one}
        if not grids:
            raise ValueError("samples: no stream of this latent has time; connect one with video or audio.")
        if unit == STEPS:
            lead = number_of(stream, samples, "stream")
            if lead not in grids:
                raise ValueError(f"stream: {names_of_streams(samples)[lead]} has no time; choose another stream.")
            part = _steps(grids[lead], start, length, names_of_streams(samples)[lead])
        else:
            # The stream with the fewest places to cut at decides, and the others follow.
            lead = min(grids, key=lambda i: len(grids[i].starts))
            whole = 1.0 if unit == SHARE else _duration(duration, shapes)
            part = grids[lead].nearest(*_shares(start, length, whole, unit))
        times = grids[lead].starts[part[0]], grids[lead].stops[part[1]]
        parts = {i: part if i == lead else grid.nearest(*times) for i, grid in grids.items()}
        logging.info("CoDi Slice Latent in Time: %s", _report(samples, grids, parts))
        masks = split_masks(samples)
        for i, (first, stop) in parts.items():
            axis = time_axis(axes[i])
            masks[i] = cut(masks[i], streams[i], axis, first, stop)
            streams[i] = streams[i].narrow(axis, first, stop - first).clone()
        return io.NodeOutput(with_masks(samples, streams, masks))


def _duration(duration: float, shapes: list) -> float:
    duration = require_number(duration, "duration", 0, MAX_TIME) or duration_of(shapes)
    if not duration:
        raise ValueError(
            "duration: the duration of latents of these models is not known; give the seconds of the whole latent, "
            "or choose another unit."
        )
    return duration


def _shares(start: float, length: float, whole: float, unit: str) -> tuple[float, float]:
    """Begin and end of the part as shares of the duration."""
    begin = start + whole if start < 0 else start
    if not 0 <= begin < whole:
        raise ValueError(f"start: {start:g} is outside of the latent, which lasts {whole:g} ({unit}); choose another.")
    if not length:
        raise ValueError("length: a part of no length holds nothing; choose a longer one.")
    return begin / whole, min(1.0, (begin + length) / whole)


def _steps(grid: TimeGrid, start: float, length: float, name: str) -> tuple[int, int]:
    """The steps of the part. `ValueError` where it would not be a valid latent."""
    for value, source in ((start, "start"), (length, "length")):
        if value != int(value):
            raise ValueError(f"{source}: {value:g} is no whole number of steps; give one, or choose another unit.")
    first = int(start) + (grid.steps if start < 0 else 0)
    if not 0 <= first < grid.steps:
        raise ValueError(f"start: there is no step {start:g} in {name}, which has {grid.steps}; choose another.")
    if not length:
        raise ValueError("length: a part of no length holds nothing; choose a longer one.")
    stop = min(grid.steps, first + int(length))
    if first not in grid.starts:
        raise ValueError(f"start: {name} cannot begin at step {first}; choose one of {_some(grid.starts)}.")
    if stop not in grid.stops:
        fitting = [step - first for step in grid.stops if step > first]
        raise ValueError(f"length: {name} cannot have {stop - first} steps; choose one of {_some(fitting)}.")
    return first, stop


def _some(numbers) -> str:
    shown = list(numbers)
    return ", ".join(map(str, shown[:8])) + (", ..." if len(shown) > 8 else "")


def _report(samples: dict, grids: dict[int, TimeGrid], parts: dict[int, tuple[int, int]]) -> str:
    names = names_of_streams(samples)
    cuts = (f"{names[i]}: steps {first} to {stop - 1} of {grids[i].steps}" for i, (first, stop) in parts.items())
    return "; ".join(cuts)
