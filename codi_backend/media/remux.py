"""A film with other audio: its video is copied as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .container import beginning, opened, packets, video_stream
from .files import UnreadableFile
from .film import seconds
from .soundtrack import RATE, Soundtrack

if TYPE_CHECKING:
    from av import Packet, VideoStream
    from av.container import OutputContainer

# MP4 plays everywhere and marks the samples that AAC begins with; Matroska holds nearly all codecs, and FLAC needs no
# such mark.
_CONTAINERS = {"mp4": ("mp4", "aac", {"movflags": "faststart"}), "mkv": ("matroska", "flac", {})}

_BIT_RATE = 192_000  # of AAC; at fewer bits, audio that begins abruptly overshoots by a tenth


@dataclass(frozen=True)
class Film:
    """A film that was written.

    Attributes
    ----------
    path : Path
        Its suffix is that of the container: .mp4 or .mkv.
    seconds : float
        How long it lasts.
    begin, end : float
        The part that has the new audio, in seconds from time 0 of the film (see `media.read`).
    """

    path: Path
    seconds: float
    begin: float
    end: float


def write_film(
    path: str | os.PathLike,
    film: str | os.PathLike,
    waveform: Tensor,
    sample_rate: int,
    *,
    start: float = 0.0,
    keep_sound: bool = False,
    track: int | None = None,
) -> Film:
    """Write a film with other audio.

    The packets of the video are copied with their time stamps, rotation and aspect ratio; nothing is encoded again.
    Where the new audio does not reach there is silence. Audio beyond the end of the video is left out.

    Parameters
    ----------
    path : path
        Where to write it, without a suffix: MP4 if it can hold the video's codec, otherwise Matroska.
    film : path
    waveform : Tensor
        Mono ``[1, N]`` in -1..1.
    sample_rate : int
        In Hz.
    start : float
        Where the new audio begins, in seconds from time 0 of the film.
    keep_sound : bool
        Mix the film's own audio with the new. Where the sum would clip, all of it is made quieter.
    track : int, optional
        Number of the audio track to keep, from 1; by default the one that players choose.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the film, also if no container can hold its video.
    """
    import av

    reasons = []
    begin = beginning(film, "a video")
    length = seconds(film)
    soundtrack = Soundtrack(waveform, sample_rate, start, length, film if keep_sound else None, track, begin)
    for suffix, (name, codec, options) in _CONTAINERS.items():
        target = Path(f"{os.fspath(path)}.{suffix}")
        partial = target.with_name(f"{target.name}.partial")
        try:
            with (
                opened(film, "a video") as source,
                av.open(os.fspath(partial), "w", format=name, options=options) as out,
            ):
                _copy(source, out, video_stream(source, film), soundtrack, codec, begin)
            os.replace(partial, target)
        except (UnreadableFile, ValueError) as error:
            reasons.append(f"{suffix}: {error.__cause__ or error}")
        else:
            end = start + waveform.shape[-1] / sample_rate
            return Film(target, length, min(start, length), min(end, length))
        finally:
            partial.unlink(missing_ok=True)
    raise UnreadableFile(
        f"The video of {film} cannot be copied into MP4 or Matroska ({'; '.join(reasons)}): convert the film to MP4."
    )


def _copy(source, out: OutputContainer, stream: VideoStream, soundtrack: Soundtrack, codec: str, begin: float) -> None:
    """Copy the video and encode the audio, in the order of their time stamps, as players read them."""
    out.metadata.update(source.metadata)
    video = out.add_stream_from_template(stream, opaque=True)
    video.metadata.update(stream.metadata)
    if stream.sample_aspect_ratio:
        video.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio
    audio = out.add_stream(codec, RATE, layout=soundtrack.layout)
    audio.bit_rate = _BIT_RATE
    pieces = _encoded(audio, soundtrack)
    piece = next(pieces, None)
    shift = round(begin / stream.time_base)
    for packet in packets(source, stream):
        if not packet.size:
            continue
        packet.pts, packet.dts = (None if stamp is None else stamp - shift for stamp in (packet.pts, packet.dts))
        while piece is not None and _time(piece) <= _time(packet):
            out.mux(piece)
            piece = next(pieces, None)
        packet.stream = video
        out.mux(packet)
    while piece is not None:
        out.mux(piece)
        piece = next(pieces, None)


def _time(packet: Packet) -> float:
    stamp = packet.pts if packet.dts is None else packet.dts
    return 0.0 if stamp is None else float(stamp * packet.time_base)


def _encoded(audio, soundtrack: Soundtrack) -> Iterator[Packet]:
    import av

    position = 0
    for block in soundtrack.blocks():
        samples = block if audio.codec_context.format.name == "fltp" else _sixteen_bits(block)
        frame = av.AudioFrame.from_ndarray(samples, audio.codec_context.format.name, soundtrack.layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, position, Fraction(1, RATE)
        position += block.shape[1]
        yield from audio.encode(frame)
    yield from audio.encode(None)


def _sixteen_bits(block: np.ndarray) -> np.ndarray:
    """``[C, N]`` in -1..1 -> the samples of all channels in turn, ``[1, N * C]``."""
    return (block.clip(-1, 1) * 32767).round().astype(np.int16).T.reshape(1, -1)
