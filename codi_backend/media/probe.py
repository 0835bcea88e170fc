"""How long a media file lasts and what it holds, without decoding it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import animation
from .container import audio_stream, audios, beginning, extents, frame_rate, opened, video_stream, videos
from .files import LONGEST, UnreadableFile, readable, without_warnings

if TYPE_CHECKING:
    from av import AudioStream


@dataclass(frozen=True)
class MediaInfo:
    """What an audio or video file holds.

    Attributes
    ----------
    video_seconds, audio_seconds : float or None
        When the video ends, and the audio track that players choose, in seconds from time 0 of the file (see
        `media.read`); None without such a stream, and for a still image.
    audio_tracks : tuple of str
        A short description of each audio track, such as "eng, Commentary, aac". Track 1 is the first.
    frame_rate : float or None
        Frames a second on average.
    """

    video_seconds: float | None
    audio_seconds: float | None
    audio_tracks: tuple[str, ...]
    frame_rate: float | None


def probe(path: str | os.PathLike) -> MediaInfo:
    """Look into an audio or video file.

    A still image has no length. Files that last more than 10 minutes are measured by their header, others by
    their packets.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file.
    """
    with without_warnings(), readable(path, "a video"):
        if animation.reads(path):
            seconds, rate = animation.length(path)
            return MediaInfo(seconds, None, (), rate)
        begin = beginning(path, "a video")
        with opened(path, "a video") as container:
            video = video_stream(container, path) if videos(container) else None
            audio = audio_stream(container, path, None) if audios(container) else None
            tracks = tuple(_description(stream) for stream in audios(container))
            streams = [stream for stream in (video, audio) if stream is not None]
            if not streams:
                raise UnreadableFile(f"{path} has no video and no audio track: give a video or audio.")
            if (container.duration or 0) / 1e6 > LONGEST:
                length = container.duration / 1e6  # FFmpeg counts it from the beginning
                rate = None if video is None else frame_rate(video)
                return MediaInfo(video and length, audio and length, tracks, rate)
            found = extents(container, *streams)
            shown, played = (None if stream is None else found.get(stream.index) for stream in (video, audio))
            return MediaInfo(
                None if shown is None else shown.end - begin,
                None if played is None else played.end - begin,
                tracks,
                None if shown is None else shown.frames / (shown.end - shown.begin),
            )


def _description(stream: AudioStream) -> str:
    parts = [stream.metadata.get("language", ""), stream.metadata.get("title", ""), stream.codec_context.name]
    return ", ".join(part for part in parts if part and part != "und")
