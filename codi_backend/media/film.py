"""Videos in containers such as MP4 and WebM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from .container import beginning, extents, frame_rate, frames_from, opened, video_stream
from .files import MOST_PIXELS, UnreadableFile, enormous
from .frames import frame_pixels
from .shown import Shown

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream


def seconds(path: str | os.PathLike) -> float:
    """When the last frame goes, in seconds from time 0; nothing but the first frame is decoded."""
    begin = beginning(path, "a video")
    with opened(path, "a video") as container:
        stream = video_stream(container, path)
        extent = extents(container, stream).get(stream.index)
    if extent is None:
        raise UnreadableFile(f"{path} holds no frames: it is empty.")
    return extent.end - begin


def frames(path: str | os.PathLike, start: float) -> Iterator[Shown]:
    """Frames from one that is shown at `start` or before."""
    begin = beginning(path, "a video")
    with opened(path, "a video") as container:
        stream = video_stream(container, path)
        _require_size(stream, path)
        rate = frame_rate(stream)
        for index, frame in enumerate(frames_from(container, stream, begin + start)):
            _require_size(frame, path)
            since = index / rate if frame.time is None else frame.time - begin
            duration = float((frame.duration or 0) * frame.time_base) if frame.time_base else 0.0
            yield Shown(since, since + (duration or 1 / rate), partial(frame_pixels, frame, stream, path))


def _require_size(frame: VideoStream | VideoFrame, path: str | os.PathLike) -> None:
    if frame.width * frame.height > MOST_PIXELS:
        raise enormous(path)
