"""What the objects of a clip are, and when they appear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.world import FRAME_RATE, TEMPI
from .common import finite
from .images import JudgedObject, coverage_of, judge_image

_TEMPO_REACH = abs(TEMPI["slow"] - TEMPI["fast"]) / 2  # seconds from a tempo's spacing that still count as it


@dataclass(frozen=True)
class JudgedVideo:
    """What a clip shows; None where the judge cannot tell.

    Attributes
    ----------
    colour, shape, count
        Of the last frame, as `JudgedImage` has them.
    onsets : tuple of float
        Seconds at which the objects appear, in order. An object that is there from frame f on appeared at some time
        between two frames: the middle is said, ``(f - 1/2) / rate``, which errs to neither side. Of what is there from
        the first frame on 0 is said.
    tempo : str or None
        From the spacing of the appearances; None for one object.
    """

    colour: str | None
    shape: str | None
    count: int | None
    onsets: tuple[float, ...] = ()
    tempo: str | None = None


def judge_video(pixels: Any, frame_rate: float = FRAME_RATE) -> JudgedVideo:
    """Tell colour, shape and count of the objects at the end of a clip, and when they appeared.

    Parameters
    ----------
    pixels : array or tensor
        ``[3, T, H, W]``, RGB in 0..1; values a little outside are clipped.
    frame_rate : float
        Frames per second.

    Raises
    ------
    ValueError
        If the clip has another layout or values that are not finite.
    """
    clip = finite(pixels, "video")
    if clip.ndim != 4 or clip.shape[0] != 3 or not clip.shape[1]:
        raise ValueError(f"A video to judge must be [3, T, H, W], not {list(clip.shape)}.")
    end = judge_image(clip[:, -1])
    frames = clip.clip(0, 1).transpose(1, 2, 3, 0)
    backgrounds = np.median(frames.reshape(len(frames), -1, 3), axis=1)
    coverage = coverage_of(frames - backgrounds[:, None, None])
    onsets = tuple(sorted(_appearance(_visibility(coverage, o)) / frame_rate for o in end.objects))
    return JudgedVideo(end.colour, end.shape, end.count, onsets, _tempo(onsets))


def _visibility(coverage: np.ndarray, judged: JudgedObject) -> np.ndarray:
    """How much of an object is there in each frame, 1 in the last one: ``[T, H, W]`` -> ``[T]``."""
    box = np.s_[:, judged.top : judged.top + judged.height, judged.left : judged.left + judged.width]
    inside = coverage[box][:, coverage[box][-1] > 0.5]
    level = inside.mean(1)
    return level / level[-1]


def _appearance(visibility: np.ndarray) -> float:
    """The moment of appearance in frames: where the visibility crosses one half.

    A frame in which an object flickers must not move it far, so the frame is the one that leaves the fewest frames
    wrong: hidden ones from it on, and shown ones before it.
    """
    shown = visibility >= 0.5
    wrong = [np.count_nonzero(shown[:f]) + np.count_nonzero(~shown[f:]) for f in range(len(shown))]
    frame = int(np.argmin(wrong))
    if frame == 0:
        return 0.0
    before, after = visibility[frame - 1], visibility[frame]
    if not before < 0.5 <= after:
        return frame - 0.5
    return frame - 1 + float((0.5 - before) / (after - before))


def _tempo(onsets: tuple[float, ...]) -> str | None:
    """The tempo whose spacing is nearest: in seconds, for appearances are known to a frame only."""
    if len(onsets) < 2:
        return None
    spacing = float(np.median(np.diff(onsets)))
    tempo = min(TEMPI, key=lambda name: abs(spacing - TEMPI[name]))
    return tempo if abs(spacing - TEMPI[tempo]) <= _TEMPO_REACH else None
