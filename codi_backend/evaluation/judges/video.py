"""Colour, shape and count of the objects in a video, and when they appear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.world import FRAME_RATE, TEMPI
from .common import finite
from .image import JudgedObject, coverage_of, judge_image

_TEMPO_REACH = abs(TEMPI["slow"] - TEMPI["fast"]) / 2  # seconds from a tempo's spacing that still count as it


@dataclass(frozen=True)
class JudgedVideo:
    """The attributes of a video; None where the judge cannot measure one.

    Attributes
    ----------
    colour, shape, count
        Of the last frame, as `JudgedImage` has them.
    onsets : tuple of float
        Seconds at which the objects appear, in order. An object that is visible from frame f on appeared between two
        frames; the onset is their middle, ``(f - 1/2) / rate``, which has no bias. It is 0 for an object that is
        visible from the first frame on.
    tempo : str or None
        From the spacing of the appearances; None for one object.
    """

    colour: str | None
    shape: str | None
    count: int | None
    onsets: tuple[float, ...] = ()
    tempo: str | None = None


def judge_video(pixels: Any, frame_rate: float = FRAME_RATE) -> JudgedVideo:
    """Measure colour, shape and count of the objects in the last frame, and when they appeared.

    Parameters
    ----------
    pixels : array or tensor
        ``[3, T, H, W]``, RGB in 0..1; values a little outside are clipped.
    frame_rate : float
        Frames per second.

    Raises
    ------
    ValueError
        If the video has another layout or values that are not finite.
    """
    video = finite(pixels, "video")
    if video.ndim != 4 or video.shape[0] != 3 or not video.shape[1]:
        raise ValueError(f"A video to judge must be [3, T, H, W], not {list(video.shape)}.")
    end = judge_image(video[:, -1])
    frames = video.clip(0, 1).transpose(1, 2, 3, 0)
    backgrounds = np.median(frames.reshape(len(frames), -1, 3), axis=1)
    coverage = coverage_of(frames - backgrounds[:, None, None])
    onsets = tuple(sorted(_appearance(_visibility(coverage, o)) / frame_rate for o in end.objects))
    return JudgedVideo(end.colour, end.shape, end.count, onsets, _tempo(onsets))


def _visibility(coverage: np.ndarray, judged: JudgedObject) -> np.ndarray:
    """Coverage of an object in each frame relative to the last frame: ``[T, H, W]`` -> ``[T]``."""
    box = np.s_[:, judged.top : judged.top + judged.height, judged.left : judged.left + judged.width]
    inside = coverage[box][:, coverage[box][-1] > 0.5]
    level = inside.mean(1)
    return level / level[-1]


def _appearance(visibility: np.ndarray) -> float:
    """The moment of appearance in frames: where the visibility crosses one half.

    It is the frame with the fewest contradictions (visible frames before it, hidden frames from it on), so that a
    flickering frame does not move it far.
    """
    visible = visibility >= 0.5
    wrong = [np.count_nonzero(visible[:f]) + np.count_nonzero(~visible[f:]) for f in range(len(visible))]
    frame = int(np.argmin(wrong))
    if frame == 0:
        return 0.0
    before, after = visibility[frame - 1], visibility[frame]
    if not before < 0.5 <= after:
        return frame - 0.5
    return frame - 1 + float((0.5 - before) / (after - before))


def _tempo(onsets: tuple[float, ...]) -> str | None:
    """The tempo with the nearest spacing in seconds, since appearances are measured to a frame only."""
    if len(onsets) < 2:
        return None
    spacing = float(np.median(np.diff(onsets)))
    tempo = min(TEMPI, key=lambda name: abs(spacing - TEMPI[name]))
    return tempo if abs(spacing - TEMPI[tempo]) <= _TEMPO_REACH else None
