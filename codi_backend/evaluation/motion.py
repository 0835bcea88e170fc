"""Peaks of motion in videos, by optical flow."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from ..media.read import frames_of

_SIDE = 128  # pixels of the short side, at which the flow is computed
_STILL = 0.01  # mean pixels a frame; compressed stills have less
_MIN_PEAK = 0.1  # of the largest motion


def motion_peaks(path: str | os.PathLike) -> np.ndarray:
    """Times in seconds at which the motion of a video is largest; none without motion.

    The motion of a frame is the mean length of the optical flow (Farneback's algorithm) from the previous frame to it.
    A peak is a local maximum of at least a tenth of the largest motion; of equal values the first.

    Parameters
    ----------
    path : path
        A video file of any size and frame rate, or an animated image.

    Returns
    -------
    array
        ``[K]``, ascending, each the time of a frame.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file.
    """
    times, motion = _motion(path)
    return times[_peaks(motion)]


def _motion(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """The time of each frame but the first, and its mean flow in pixels."""
    import cv2

    times, motion, previous = [], [], None
    for since, grey in _grey_frames(path):
        if previous is not None:
            flow = cv2.calcOpticalFlowFarneback(previous, grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
            times.append(since)
            motion.append(float(np.hypot(flow[..., 0], flow[..., 1]).mean()))
        previous = grey
    return np.array(times), np.array(motion)


def _grey_frames(path: str | os.PathLike) -> Iterable[tuple[float, np.ndarray]]:
    """Times and 8-bit grey images ``[H, W]`` of one size, with the short side at most `_SIDE`."""
    import cv2

    size = None
    for since, pixels in frames_of(path):
        image = (pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        if size is None:
            shrink = min(1.0, _SIDE / min(image.shape[:2]))
            size = tuple(max(1, round(shrink * side)) for side in image.shape[1::-1])
        yield since, cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)


def _peaks(motion: np.ndarray) -> np.ndarray:
    """Indices of the local maxima; beyond both ends there is no motion."""
    if not motion.size or motion.max() < _STILL:
        return np.zeros(0, int)
    before, after = np.pad(motion, 1)[:-2], np.pad(motion, 1)[2:]
    return np.flatnonzero((motion > before) & (motion >= after) & (motion >= max(_STILL, _MIN_PEAK * motion.max())))
