"""Audio and video files opened with PyAV: the right stream, and stamps on one timeline."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .files import UnreadableFile, readable

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoStream
    from av.container import InputContainer
    from av.frame import Frame
    from av.stream import Stream

_DISCONTINUOUS = 0x0200  # AVFMT_TS_DISCONT: in these formats stamps may jump without a pause in what is shown
_RESTART, _LEAP = 0.1, 10.0  # seconds; stamps that go back, or in those formats ahead, by more start anew
# Formats whose stamps are stored, so that they are the same after a seek. In others they are counted or estimated.
_SEEKABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "wav", "flac"}
_TEXTS = {"tty", "bin", "xbin", "adf", "idf"}  # FFmpeg makes videos of the letters
_PADDING = 0.2  # seconds; codecs of audio work in blocks that are no longer
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_LEAD = 0.5  # seconds; decoders need some packets before the first one that counts


@contextlib.contextmanager
def opened(path: str | os.PathLike, kind: str) -> Iterator[InputContainer]:
    """The file as a container; what goes wrong until the end of the body becomes a sentence (see `readable`).

    PyAV is given the open file, since a name with a colon would look like an address to it. Playlists open no files.
    """
    import av

    options = {"protocol_whitelist": "none"}
    with (
        readable(path, kind),
        open(path, "rb") as file,
        av.open(file, options=options, metadata_errors="ignore") as container,
    ):
        if container.format.name in _TEXTS:
            raise ValueError("it is text")
        yield container


def video_stream(container: InputContainer, path: str | os.PathLike) -> VideoStream:
    """The video stream that FFmpeg would choose. The cover of an album is no video."""
    streams = videos(container)
    if not streams:
        cover = " but a cover image" if container.streams.video else ""
        raise UnreadableFile(f"{path} has no video track{cover}: give a video.")
    best = container.streams.best("video")
    return next((stream for stream in streams if stream is best), streams[0])


def audios(container: InputContainer) -> list[AudioStream]:
    """The audio streams that can be decoded, in the order of the file."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def audio_stream(container: InputContainer, path: str | os.PathLike, track: int | None) -> AudioStream:
    """The audio stream of a number from 1, or the one that FFmpeg would choose."""
    streams = audios(container)
    if not streams:
        raise UnreadableFile(f"{path} has no audio track: give audio, or a video that has an audio track.")
    if track is None:
        best = container.streams.best("audio")
        return next((stream for stream in streams if stream is best), streams[0])
    if not 1 <= track <= len(streams):
        count = "1 audio track" if len(streams) == 1 else f"{len(streams)} audio tracks"
        raise UnreadableFile(f"{path} has {count}, no track {track}: give a number from 1 to {len(streams)}.")
    return streams[track - 1]


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet]:
    """Packets of some streams in the order of decoding.

    Where stamps start anew, as in files that were joined, they are set forth. The last packet of each stream is empty.
    """
    leaps = container.format.flags & _DISCONTINUOUS
    offsets = dict.fromkeys((stream.index for stream in streams), 0)
    expected: dict[int, int] = {}
    for packet in container.demux(*streams):
        key = packet.stream.index
        if (stamp := packet.dts) is not None and packet.size:
            jump = float((stamp + offsets[key] - expected.get(key, stamp + offsets[key])) * packet.time_base)
            if jump < -_RESTART or (leaps and jump > _LEAP):
                offsets[key] = expected[key] - stamp
            expected[key] = stamp + offsets[key] + (packet.duration or 0)
        if offsets[key]:
            packet.pts = None if packet.pts is None else packet.pts + offsets[key]
            packet.dts = None if packet.dts is None else packet.dts + offsets[key]
        yield packet


def decoded(stream: Stream, packets: Iterable[Packet]) -> Iterator[Frame]:
    """Frames of a stream in the order in which they are presented. Damaged packets are left out, as players do."""
    import av

    decode = _decoder(stream)
    for packet in packets:
        try:
            frames = decode(packet)
        except av.FFmpegError:
            continue
        yield from frames


def _decoder(stream: Stream) -> Callable[[Packet], list[Frame]]:
    """The stream's own, but for VP8 and VP9 with alpha, which FFmpeg's own decoders leave out."""
    import av

    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return stream.decode
    context = av.CodecContext.create(name, "r")
    return lambda packet: context.decode(packet if packet.size else None)


def beginning(path: str | os.PathLike, kind: str) -> float:
    """When the earliest audio or video is first presented, in seconds of the file's own stamps.

    Streams begin with samples that only prepare the decoder, so the first frames are decoded.
    """
    with opened(path, kind) as container:
        streams = [*videos(container), *audios(container)]
        starts = {s: float(s.start_time * s.time_base) for s in streams if s.start_time is not None}
        if not starts:
            return 0.0
        first = min(starts.values())
        near = {stream.index: stream for stream, start in starts.items() if start < first + _LEAD}
        times = []
        for packet in packets(container, *near.values()):
            if packet.stream.index in near and (frame := next(decoded(packet.stream, [packet]), None)) is not None:
                times.append(first if frame.time is None else frame.time)
                del near[packet.stream.index]
            far = packet.dts is not None and float(packet.dts * packet.time_base) > first + 10 * _LEAD
            if not near or far:
                break
        return min(times, default=first)


def frames_from(container: InputContainer, stream: Stream, moment: float) -> Iterator[Frame]:
    """Frames from one that is presented at `moment` or before, in seconds of the file's own stamps."""
    if container.format.name in _SEEKABLE and moment > 2 * _LEAD:
        lead = _LEAD
        while lead < moment:
            with contextlib.suppress(StopIteration):
                container.seek(int((moment - lead) / stream.time_base), stream=stream)
                frames = _from_key_frame(decoded(stream, packets(container, stream)))
                first = next(frames)
                if first.time is not None and first.time <= moment:
                    yield first
                    yield from frames
                    return
            lead *= 4
        container.seek(0)
    yield from decoded(stream, packets(container, stream))


def _from_key_frame(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Frames before the first key frame lack what they refer to."""
    for frame in frames:
        if getattr(frame, "key_frame", True):
            yield frame
            yield from frames


def videos(container: InputContainer) -> list[VideoStream]:
    """The video streams that can be decoded, without covers."""
    from av.stream import Disposition

    return [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]


class Extent(NamedTuple):
    """When the first frame of a stream begins and the last one ends, in seconds of the file's own stamps; how many."""

    begin: float
    end: float
    frames: int


def extents(container: InputContainer, *streams: Stream) -> dict[int, Extent]:
    """Of some streams, by their indices. Nothing is decoded. Streams without packets are missing."""
    found: dict[int, Extent] = {}
    for packet in packets(container, *streams):
        if packet.size and not packet.is_discard:
            index = packet.stream.index
            begin, end, count = found.get(index, (math.inf, -math.inf, 0))
            length = float((packet.duration or 0) * packet.time_base)
            if not length and packet.stream.type == "video":
                length = 1 / frame_rate(packet.stream)
            if packet.pts is None:  # raw streams have no stamps
                since = end if count else 0.0
            else:
                since = float(packet.pts * packet.time_base)
            found[index] = Extent(min(begin, since), max(end, since + length), count + 1)
    return {
        s.index: found[s.index]._replace(end=declared_end(s, found[s.index].end)) for s in streams if s.index in found
    }


def declared_end(stream: Stream, end: float) -> float:
    """The end of a stream as the container declares it, if the last block of its codec reaches a little beyond that."""
    if stream.duration is None or stream.start_time is None:
        return end
    declared = float((stream.start_time + stream.duration) * stream.time_base)
    return declared if 0 < end - declared < _PADDING else end


def frame_rate(stream: VideoStream) -> float:
    """Frames per second, as the header states them."""
    return float(stream.average_rate or stream.base_rate or 25)
