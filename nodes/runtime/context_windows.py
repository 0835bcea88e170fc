"""ComfyUI's context windows over joint latents: all streams with time are cut at the same times.

The core windows the first stream along one axis and asks the model for the indices of the others. In our latents an
image comes first, and an audio latent has to have whole units of its network. So a run's handler of windows is replaced
by a copy that puts a stream with time first and chooses its windows in units that all streams can be cut at.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import comfy.conds
import comfy.utils
from comfy.context_windows import (
    ContextHandlerABC,
    IndexListContextHandler,
    IndexListContextWindow,
    apply_freenoise,
    create_windows_static_standard,
)
from torch import Tensor

from ...codi_backend.config import CoDiConfig
from ...codi_backend.modalities import MAX_FRAMES, modality
from ...codi_backend.sampling.windows import Window, step_seconds, unit_steps
from .latent_packing import names_of

Shapes = Sequence[Sequence[int]]

TIME = 2  # the axis of time, in every latent that has one
BATCH = 0
_ROUNDING = 1e-6  # of a unit


class Units:
    """The streams of a latent in units of equal time, at which every one of them can be cut."""

    def __init__(self, config: CoDiConfig, names: Sequence[str], shapes: Shapes):
        self.lengths = {name: shape[TIME] for name, shape in zip(names, shapes) if modality(name).time_axis}
        self.step = {name: step_seconds(config, name) for name in self.lengths}
        self.seconds = {name: steps * self.step[name] for name, steps in self.lengths.items()}
        self.unit = max(unit_steps(config, name) * self.step[name] for name in self.lengths)
        self.total = math.ceil(max(self.seconds.values()) / self.unit - _ROUNDING)

    def count(self, name: str, steps: int) -> int:
        """So many steps of a stream in units, rounded up."""
        return math.ceil(steps * self.step[name] / self.unit - _ROUNDING)

    def steps(self, name: str, unit: int) -> range:
        """The steps of a stream within a unit; those of the last one end with the stream."""
        first, end = (round(bound * self.unit / self.step[name]) for bound in (unit, unit + 1))
        total = self.lengths[name]
        return range(min(first, total), total if unit == self.total - 1 else min(end, total))

    def of_steps(self, name: str, steps: Sequence[int]) -> list[int]:
        """The units in which the steps of a stream lie, in the order of the steps."""
        unit_of = {step: unit for unit in range(self.total) for step in self.steps(name, unit)}
        return list(dict.fromkeys(unit_of[step] for step in steps))


def map_window(config: CoDiConfig, indices: Sequence[int], shapes: Shapes, dim: int) -> list[list[int]]:
    """A window's indices along axis `dim` of every stream, from those of the first one.

    Along time, streams are cut at the same times; streams without time take part whole.
    """
    if dim == BATCH:
        return [list(indices) for _ in shapes]
    names = names_of(shapes, config)
    units = Units(config, names, shapes)
    inside = units.of_steps(names[0], indices)
    others = [
        [step for unit in inside for step in units.steps(name, unit)] if name in units.lengths else [*range(shape[dim])]
        for name, shape in zip(names[1:], shapes[1:])
    ]
    return [list(indices), *others]


def cut_held(held: dict[str, Tensor], names: Sequence[str], window: IndexListContextWindow | None) -> dict[str, Tensor]:
    """Held streams as they are within a window; `names` are the streams in the window's order."""
    if window is None:
        return held
    return {
        name: window.get_window_for_modality(names.index(name)).get_tensor(z, z.device, dim=window.dim)
        for name, z in held.items()
    }


class _ByTime:
    """What is changed in the user's handler of windows; see the module."""

    names: list[str]
    shapes: Shapes
    units: Units

    def should_use_context(self, model, conds, x_in, timestep, model_options) -> bool:
        return super().should_use_context(model, self._conds(conds), self._packed(x_in), timestep, model_options)

    def execute(self, calc_cond_batch, model, conds, x_in, timestep, model_options) -> list[Tensor]:
        # The core would look up a window's frames in the batch of timesteps; those of a batch are equal.
        def predict(model, conds, x, timestep, model_options):
            return calc_cond_batch(model, conds, x, timestep.expand(len(x)), model_options)

        conds = self._conds(conds)
        results = super().execute(predict, model, conds, self._packed(x_in), timestep[:1], model_options)
        return [self._packed(result, back=True) for result in results]

    def _planner(self) -> Any:
        """The same handler, whose lengths count units."""
        primary = self.names[self.order[0]]
        planner = copy.copy(self)
        planner.context_length = self.units.count(primary, self.context_length)
        # As long as a window, it would never get further.
        planner.context_overlap = min(self.units.count(primary, self.context_overlap), planner.context_length - 1)
        return planner

    def parts(self) -> list[Window]:
        """Windows that do not depend on the step, to compare candidates in."""
        unit = self.units.unit
        return [
            Window(
                inside[0] * unit,
                (inside[-1] + 1) * unit,
                {
                    name: slice(self.units.steps(name, inside[0]).start, self.units.steps(name, inside[-1]).stop)
                    for name in self.units.lengths
                },
            )
            for inside in create_windows_static_standard(self.units.total, self._planner(), {})
        ]

    def get_context_windows(self, model, x_in, model_options) -> list[IndexListContextWindow]:
        primary, planner = self.names[self.order[0]], self._planner()
        overlap = round(planner.context_overlap * self.units.unit / self.units.step[primary])
        return [
            IndexListContextWindow(
                [step for unit in window for step in self.units.steps(primary, unit)],
                dim=self.dim,
                total_frames=self.units.lengths[primary],
                context_overlap=overlap,
            )
            for window in self.context_schedule.func(self.units.total, planner, model_options)
        ]

    def _apply_freenoise(self, noise: Tensor, conds: Any, seed: int) -> Tensor:
        primary = self.names[self.order[0]]
        seconds = [steps * self.units.step[primary] for steps in (self.context_length, self.context_overlap)]
        streams = comfy.utils.unpack_latents(noise, self.shapes)
        for name, stream in zip(self.names, streams):
            if name in self.units.lengths:
                apply_freenoise(stream, TIME, *(round(s / self.units.step[name]) for s in seconds), seed)
        return comfy.utils.pack_latents(streams)[0] if len(streams) > 1 else streams[0]

    @property
    def order(self) -> list[int]:
        """The streams with one that has time first: the video, or else the audio."""
        first = self.names.index(next(iter(self.units.lengths)))
        return [first, *(i for i in range(len(self.names)) if i != first)]

    def _packed(self, packed: Tensor, back: bool = False) -> Tensor:
        """A packed latent with its streams in `order`, or back from it."""
        if len(self.names) == 1:
            return packed
        shapes, order = self.shapes, self.order
        if back:
            shapes, order = [shapes[i] for i in order], [order.index(i) for i in range(len(order))]
        streams = comfy.utils.unpack_latents(packed, shapes)
        return comfy.utils.pack_latents([streams[i] for i in order])[0]

    def _conds(self, conds: list) -> list:
        """Conditions that give the shapes of the streams in `order`."""
        if len(self.names) == 1:
            return conds
        shapes = comfy.conds.CONDConstant([self.shapes[i] for i in self.order])
        return [
            rows and [row | {"model_conds": row["model_conds"] | {"latent_shapes": shapes}} for row in rows]
            for rows in conds
        ]


def windows_of(model_options: dict) -> list[Window] | None:
    """The windows along time of a run with these options; None if it has none."""
    handler = model_options.get("context_handler")
    return handler.parts() if isinstance(handler, _ByTime) else None


def by_time(
    handler: ContextHandlerABC, config: CoDiConfig, names: list[str], shapes: Shapes
) -> tuple[ContextHandlerABC, Shapes]:
    """A handler of windows for a latent with these streams, and the shapes of the streams in one window.

    `ValueError` about the node's input `model` where these windows would take apart what belongs together.
    """
    if not isinstance(handler, IndexListContextHandler):
        return handler, shapes
    dims = (BATCH, TIME) if any(modality(name).time_axis for name in names) else (BATCH,)
    if handler.dim not in dims:
        raise ValueError(
            f"model: context windows over dim {handler.dim} do not work with the {', '.join(names)} "
            f"stream{'s' * (len(names) > 1)}; set dim to {TIME} for the time of a video or audio, or to {BATCH} for a "
            "batch."
        )
    windows = _copy(handler, type(handler))
    windows.causal_window_fix = False  # for autoencoders whose first frame differs; ours have none
    if handler.dim == BATCH:
        return windows, [[min(shape[0], handler.context_length), *shape[1:]] for shape in shapes]
    units = Units(config, names, shapes)
    _check(handler, names, units)
    windows = _copy(windows, type(type(handler).__name__, (_ByTime, type(handler)), {}))
    windows.names, windows.shapes, windows.units = names, shapes, units
    primary = names[windows.order[0]]
    inside = range(min(units.total, units.count(primary, handler.context_length)))
    window = [
        [*shape[:TIME], sum(len(units.steps(name, unit)) for unit in inside), *shape[TIME + 1 :]]
        if name in units.lengths
        else shape
        for name, shape in zip(names, shapes)
    ]
    return windows, window


def _copy(handler: IndexListContextHandler, kind: type) -> Any:
    """The same settings in an object of another class."""
    other = kind.__new__(kind)
    other.__dict__.update(handler.__dict__)
    return other


def _check(handler: IndexListContextHandler, names: list[str], units: Units) -> None:
    longest, shortest = max(units.seconds.values()), min(units.seconds.values())
    if longest - shortest > units.unit + _ROUNDING:
        found = ", ".join(f"{name} {seconds:g} s" for name, seconds in units.seconds.items())
        raise ValueError(
            f"latent_image: context windows need streams that last equally long ({found}); make them so in CoDi Empty "
            "Latent or the encoder nodes, or remove the Context Windows node."
        )
    if handler.context_stride > 1 and "audio" in names:
        raise ValueError("model: context windows cannot leave out audio between steps; set context_stride to 1.")
    if "video" in names and min(handler.context_length, units.lengths["video"]) > MAX_FRAMES:
        raise ValueError(f"model: a context window of {handler.context_length} frames is too long; set at most "
                         f"{MAX_FRAMES}.")  # fmt: skip
    kept = [index for index in handler.latent_retain_index_list if not 0 <= index < handler.context_length]
    if kept:
        raise ValueError(
            f"model: latent_retain_index_list names {kept[0]}, which is outside of a window; give indices from 0 to "
            f"{handler.context_length - 1}."
        )
