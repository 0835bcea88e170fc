"""AV-Align: synchrony of audio and video as the overlap of audio onsets and peaks of motion.

The measure of Yariv et al., "Diverse and Aligned Audio-to-Video Generation via Text-to-Video Model Adaptation" (AAAI
2024). It needs no weights, so it compares models, and any clips, on equal terms.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..media.files import UnreadableFile
from ..media.read import probe, read_audio
from .motion import motion_peaks
from .onsets import audio_onsets

_ROUNDING = 1e-3  # seconds; containers round stamps


@dataclass(frozen=True)
class Events:
    """Onsets of a clip's audio and motion peaks of its video, in seconds, and the seconds between two frames."""

    onsets: tuple[float, ...]
    peaks: tuple[float, ...]
    frame_seconds: float


def find_events(path: str | os.PathLike) -> Events:
    """Audio onsets and motion peaks of a video file that has audio.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file, also if it has no video, a single frame, or no audio.
    """
    info = probe(path)
    if not info.video_seconds or not info.frame_rate:
        raise UnreadableFile(f"{path} has no video: give a video that has audio.")
    if info.audio_seconds is None:
        raise UnreadableFile(f"{path} has no audio: give a video that has audio.")
    return Events(
        tuple(audio_onsets(*read_audio(path)).tolist()), tuple(motion_peaks(path).tolist()), 1 / info.frame_rate
    )


def av_align(onsets: Sequence[float], peaks: Sequence[float], frame_seconds: float) -> float | None:
    """Intersection over union of audio onsets and motion peaks.

    An onset is matched if there is a peak at most one frame before or after it, and the reverse. With A onsets and V
    peaks, of which a and v are matched, the intersection is I = (a + v) / 2 and the score I / (A + V - I).

    Parameters
    ----------
    onsets, peaks : sequence of float
        Times in seconds.
    frame_seconds : float
        Seconds between two frames of the video.

    Returns
    -------
    float or None
        In 0..1: 1 if all are matched, 0 if none is, as where one of both is empty. None if both are empty, as in a
        silent still: nothing is to be synchronous there.
    """
    if not len(onsets) + len(peaks):
        return None
    distances = np.abs(np.subtract.outer(np.asarray(onsets, float), np.asarray(peaks, float)))
    near = distances <= frame_seconds + _ROUNDING
    shared = (np.count_nonzero(near.any(1)) + np.count_nonzero(near.any(0))) / 2
    return float(shared / (len(onsets) + len(peaks) - shared))


@dataclass(frozen=True)
class Synchrony:
    """AV-Align of several clips.

    Attributes
    ----------
    scores : dict of str to (float or None)
        By file; None without any onset and peak.
    mean : float or None
        Of the scores that are not None.
    shuffled : float or None
        The mean of the same measure with the audio of each clip against the video of every other one, which is what
        clips reach without synchrony. None for a single clip.
    """

    scores: dict[str, float | None]
    mean: float | None
    shuffled: float | None


def measure_synchrony(paths: Sequence[str | os.PathLike]) -> Synchrony:
    """AV-Align of video files that have audio, and its shuffled baseline.

    Raises
    ------
    FileNotFoundError, ValueError
        As `find_events`; also without files, and if a file is given twice.
    """
    names = [os.fspath(path) for path in paths]
    if not names:
        raise ValueError("There are no clips to measure: give at least one video that has audio.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice: give each clip once.")
    events = [find_events(name) for name in names]
    scores = {name: av_align(e.onsets, e.peaks, e.frame_seconds) for name, e in zip(names, events)}
    mixed = [av_align(a.onsets, v.peaks, v.frame_seconds) for a in events for v in events if a is not v]
    return Synchrony(scores, _mean(scores.values()), _mean(mixed))


def _mean(scores: Iterable[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None
