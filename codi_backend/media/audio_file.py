"""Audio as samples on the timeline of its file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..checks.inputs import MAX_SAMPLE
from ..checks.numbers import require_finite
from .container import audio_stream, beginning, declared_end, frames_from, opened
from .files import LONGEST, UnreadableFile, too_long

if TYPE_CHECKING:
    from av import AudioFrame

_TOLERANCE = 0.015  # seconds; containers round stamps, and those of recordings jitter


def read_audio(
    path: str | os.PathLike, *, start: float = 0.0, seconds: float | None = None, track: int | None = None
) -> tuple[Tensor, int]:
    """The audio of an audio or video file -> mono samples ``[1, N]`` and their rate in Hz.

    Channels are averaged. Rates that are hard to convert further become 48000 Hz. Where the file has no samples, as
    before audio that begins later than the video, there is silence.

    Parameters
    ----------
    path : path
    start : float
        Where to begin, in seconds from time 0 of the file (see `media.read`).
    seconds : float, optional
        How much to read at most; the file may end before. By default all.
    track : int, optional
        Number of the audio track, from 1. By default the one that players choose.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file; also for more than 10 minutes, and if the audio ends before `start`.
    """
    if start < 0:
        raise ValueError(f"{path}: audio cannot be read from {start:g} s: give a start of 0 or more.")
    if (seconds or 0) > LONGEST:
        raise too_long(path)
    begin = beginning(path, "audio")
    with opened(path, "audio") as container:
        stream = audio_stream(container, path, track)
        rate = stream.rate if 4000 <= stream.rate <= 192000 and stream.rate % 25 == 0 else 48000
        first = round(start * rate)
        most = round((LONGEST if seconds is None else seconds) * rate)
        timeline = _Timeline(rate, first, first + most)
        for frame in frames_from(container, stream, begin + start):
            timeline.add(frame, begin)
            if timeline.full:
                break
        timeline.flush()
        end = declared_end(stream, begin + timeline.position / rate) - begin
        length = min(timeline.position, round(end * rate)) - first
    if timeline.last is None:
        raise UnreadableFile(f"{path} holds no samples of audio: it is empty.")
    if length <= 0:
        raise UnreadableFile(f"{path}: the audio ends at {timeline.last:.2f} s: give a start before that.")
    if seconds is None and length > most:
        raise too_long(path)
    samples = torch.from_numpy(np.concatenate(timeline.pieces)[: min(length, most)])[None]
    require_finite(samples, str(path), "make the audio again", MAX_SAMPLE)
    return samples, rate


class _Timeline:
    """Samples of decoded frames, each at its time stamp.

    Gaps become silence. Of samples that overlap earlier ones, the earlier ones stay.

    Parameters
    ----------
    rate : int
        Of the result, in Hz.
    first, limit : int
        The part to keep, in samples from time 0. `full` is whether there are samples beyond it.
    """

    def __init__(self, rate: int, first: int, limit: int):
        self.rate, self.position, self.limit = rate, first, limit
        self.pieces: list[np.ndarray] = []
        self.last: float | None = None  # where the latest frame ends, in seconds
        self._frame_rate: int | None = None
        self._resampler = None
        self._skipped = 0  # samples to drop before the next ones are kept

    @property
    def full(self) -> bool:
        return self.position > self.limit

    def add(self, frame: AudioFrame, begin: float) -> None:
        """Add a frame; `begin` is the stamp of time 0, in seconds."""
        import av

        expected = self.last or 0.0
        since = expected if frame.time is None else frame.time - begin
        if self.last is None or frame.sample_rate != self._frame_rate or abs(since - expected) > _TOLERANCE:
            self._begin_at(since, frame.sample_rate)
            expected = since
        self.last = expected + frame.samples / frame.sample_rate
        samples = _mono(frame)
        if self._resampler is None:
            self._append(samples)
            return
        mono = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        mono.sample_rate = frame.sample_rate
        self._append(*(piece.to_ndarray()[0] for piece in self._resampler.resample(mono)))

    def flush(self) -> None:
        """Add what the resampler still holds."""
        if self._resampler is not None:
            self._append(*(piece.to_ndarray()[0] for piece in self._resampler.resample(None)))
            self._resampler = None

    def _begin_at(self, since: float, frame_rate: int) -> None:
        import av

        self.flush()
        at = round(since * self.rate)
        if at > self.position:
            self.pieces.append(np.zeros(min(at, self.limit + 1) - self.position, np.float32))
            self.position += len(self.pieces[-1])
        self._skipped = self.position - at
        self._frame_rate = frame_rate
        if frame_rate != self.rate:
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=self.rate)

    def _append(self, *pieces: np.ndarray) -> None:
        for piece in pieces:
            kept = piece[max(0, self._skipped) :]
            self._skipped -= len(piece) - len(kept)
            self.pieces.append(kept)
            self.position += len(kept)


def _mono(frame: AudioFrame) -> np.ndarray:
    """``[N]`` of float32; integers of any size become -1..1."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        values = values.astype(np.float32) / 128 - 1
    elif values.dtype.kind == "i":
        values = values / -float(np.iinfo(values.dtype).min)
    with np.errstate(invalid="ignore", over="ignore"):  # such values are refused in the end
        return values.mean(0, dtype=np.float64).astype(np.float32)
