"""What the axes of a stream of any model are, from its shape alone; and the times at which it can be cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, cycle, islice, pairwise

from ...codi_backend.config.coupler import AXES

_KINDS = {"": "text", "HW": "image", "THW": "video", "T": "audio", "TF": "audio", "FT": "audio"}
# Channels of video latents whose steps stand for different numbers of frames: those of the first steps, and those that
# repeat after them. LTX-2's autoencoder is causal, MiniMax H3's works on blocks of 17 frames.
_LTX, _H3 = 128, 24
_FRAMES = {_LTX: ((1,), (8,)), _H3: ((), (1, 4, 4, 4, 4))}
_ROUNDING = 1e-6  # of shares of the duration
_H3_BLOCK, _H3_REST = 5, 2  # a valid latent of H3 has 5 n + 2 steps


def axes_of(shape: Sequence[int]) -> str:
    """The axes after the channels of a stream ``[B, C, ...]``, one of `codi_backend.config.coupler.AXES`.

    Audio latents with frequencies are told from images by channels and extent: those of CoDi and LTX-2
    ``[B, 8, T, F]``, ACE-Step ``[B, 8, 16, T]`` and MiniMax H3 ``[B, 32, 2, T]``.
    """
    channels, extent = shape[1], tuple(shape[2:])
    if len(extent) != 2:
        return {0: "", 1: "T"}.get(len(extent), "THW")
    if extent == (1, 1):
        return ""
    if channels == 32 and extent[0] == 2:
        return "FT"
    if channels == 8:
        return "FT" if extent[0] == 16 and extent[1] not in (8, 16) else "TF"
    return "HW"


def kind_of(axes: str) -> str:
    """The modality that a stream with these axes has."""
    return _KINDS[axes]


def time_axis(axes: str) -> int | None:
    """The number of the time axis of a tensor ``[B, C, ...]``, None without one."""
    return axes.index("T") + 2 if "T" in axes else None


def parse_axes(text: str, shapes: Sequence[Sequence[int]]) -> list[str]:
    """The axes of each stream from a text such as ``THW, TF``; from the shapes if it is empty.

    `ValueError` about the node's input `axes`.
    """
    words = text.upper().replace(",", " ").split()
    if not words:
        return [axes_of(shape) for shape in shapes]
    if len(words) != len(shapes):
        raise ValueError(f"axes: there are {len(words)} for {len(shapes)} streams; give one for each, such as THW, TF.")
    for word, shape in zip(words, shapes):
        if word not in AXES or len(word) != len(shape) - 2:
            raise ValueError(f"axes: a stream of shape {list(shape)} does not have axes {word}; leave it empty.")
    return words


@dataclass(frozen=True)
class TimeGrid:
    """The steps of a stream in time, as shares of its duration.

    Attributes
    ----------
    edges : tuple of float
        Where each step begins, and the end.
    starts, stops : dict of int to float
        Steps at which a part may begin or end so that it is a valid latent, with the times of what it decodes to.
    """

    edges: tuple[float, ...]
    starts: dict[int, float]
    stops: dict[int, float]

    @property
    def steps(self) -> int:
        return len(self.edges) - 1

    def nearest(self, start: float, stop: float) -> tuple[int, int]:
        """The steps from and to which the part is that is nearest to these shares; at least one step."""
        first = min(self.starts, key=lambda step: abs(self.starts[step] - start))
        later = [step for step in self.stops if step > first]
        return first, min(later, key=lambda step: abs(self.stops[step] - stop))

    def within(self, start: float, stop: float) -> list[bool]:
        """Whether the middle of each step lies between two shares; adjacent ones share no step."""
        return [start - _ROUNDING <= (a + b) / 2 < stop - _ROUNDING for a, b in pairwise(self.edges)]


def time_grid(shape: Sequence[int], axes: str) -> TimeGrid:
    """The grid of a stream ``[B, C, ...]`` with a time axis.

    A part of a causal video begins with a step that decodes to one frame instead of 8: to the last frame of the step.
    """
    steps, channels = shape[time_axis(axes)], shape[1] if axes == "THW" else 0
    once, repeated = _FRAMES.get(channels, ((), (1,)))
    counts = list(islice(chain(once, cycle(repeated)), steps))
    total = sum(counts)
    edges = tuple(count / total for count in accumulate(counts, initial=0))
    starts, stops = dict(enumerate(edges[:-1])), dict(list(enumerate(edges))[1:])
    if channels == _LTX:
        starts = {step: edges[step + 1] - 1 / total for step in starts}
    elif channels == _H3 and steps >= _H3_REST:
        starts = {step: time for step, time in starts.items() if step % _H3_BLOCK == 0 and step + _H3_REST <= steps}
        stops = {step: time for step, time in stops.items() if step % _H3_BLOCK == _H3_REST or step == steps}
    return TimeGrid(edges, starts, stops)


def duration_of(shapes: Sequence[Sequence[int]]) -> float | None:
    """Seconds that a joint latent lasts, if it is one of LTX-2 or MiniMax H3, whose audio has a fixed rate."""
    videos = {shape[1] for shape in shapes if axes_of(shape) == "THW"}
    for shape in shapes:
        if videos == {_LTX} and len(shape) == 4 and (shape[1], shape[3]) == (8, 16):
            return shape[2] / 25
        if videos == {_H3} and len(shape) == 4 and tuple(shape[1:3]) == (32, 2):
            return shape[3] / 40
    return None
