"""Files of pictures, sounds and videos as tensors, and sentences about those that cannot be read."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

if TYPE_CHECKING:
    import av

# Short sides above these hold nothing that a model would see, and much memory.
_PICTURE_SIDE, _FRAME_SIDE = 2048, 512  # pixels
_LONGEST = 600  # seconds
_MOST_PIXELS = 90_000_000


def read_text(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file, without the space around it."""
    with _opened(path), open(path, encoding="utf-8-sig") as file:
        return file.read(1_000_000).strip()


def read_image(path: str | os.PathLike) -> Tensor:
    """A picture file -> pixels ``[3, H, W]`` in 0..1.

    Upright as its EXIF data say, what is transparent on white; of an animation the first frame. Pictures of 4096 pixels
    and more on the short side are reduced.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file.
    """
    with _opened(path), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                image = ImageOps.exif_transpose(image)
            if image.mode[0] not in "IF":
                image = image.convert("RGBA")
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise _enormous(path) from error
        except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
            reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({error})"
            raise ValueError(
                f"{path} cannot be read as a picture{reason}: give a PNG, JPEG, WebP or the like."
            ) from error
    if image.mode != "RGBA":
        image = _eight_bits(image, path).convert("RGBA")
    if (factor := min(image.size) // _PICTURE_SIDE) > 1:
        image = image.reduce(factor)
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return torch.from_numpy(np.array(flat)).permute(2, 0, 1).float() / 255


def read_audio(path: str | os.PathLike) -> tuple[Tensor, int]:
    """The sound of a sound or video file -> mono samples ``[1, N]`` and their rate in Hz.

    Channels are averaged. Rates that are hard to convert further become 48000 Hz.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file; also for more than 10 minutes.
    """
    import av

    with _opened(path), _container(path, "sound") as container:
        if not container.streams.audio:
            raise ValueError(f"{path} has no sound track: give a sound, or a video that has one.")
        stream = container.streams.audio[0]
        rate = stream.rate if 4000 <= stream.rate <= 192000 and stream.rate % 25 == 0 else 48000
        resampler = av.AudioResampler(format="fltp", rate=rate)
        pieces, length = [], 0
        for frame in _decoded(container, stream):
            for piece in resampler.resample(frame):
                pieces.append(piece.to_ndarray().mean(0))
                length += len(pieces[-1])
            if length > _LONGEST * rate:
                raise _long(path)
        if pieces:
            pieces += [piece.to_ndarray().mean(0) for piece in resampler.resample(None)]
    samples = torch.from_numpy(np.concatenate(pieces or [np.zeros(0, np.float32)])).float()[None]
    if samples.numel() == 0:
        raise ValueError(f"{path} holds no samples of sound: it is empty.")
    if not samples.isfinite().all():
        raise ValueError(f"{path} holds samples that are not finite (NaN or infinity): make the sound again.")
    return samples, rate


def read_video(path: str | os.PathLike, frames: int, frame_rate: float | None = None) -> Tensor:
    """A video file -> `frames` frames ``[3, T, H, W]`` in 0..1.

    Frames of more than 512 pixels on the short side are reduced while reading.

    Parameters
    ----------
    frames : int
        How many are taken; some will be equal if the video has fewer.
    frame_rate : float, optional
        Take them from the beginning, that many a second, the last frame lasting for ever; otherwise they are spread
        evenly over the whole video. Of a video as long as `frames` at the model's frame rate both give the same.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file; also for more than 10 minutes.
    """
    with _opened(path), _container(path, "video") as container:
        begin, end = _span(container, path)
    step = 1 / frame_rate if frame_rate else (end - begin) / frames
    # What is seen at these moments; half a thousandth of a second is what containers round times by.
    moments = begin + step * np.arange(frames) + 5e-4
    pictures: list[Tensor] = []
    shown = None
    with _container(path, "video") as container:
        stream = container.streams.video[0]
        for index, frame in enumerate(_decoded(container, stream)):
            since = index / _rate(stream) if frame.time is None else frame.time
            while shown and len(pictures) < frames and moments[len(pictures)] < since:
                pictures.append(_pixels(shown))
            if len(pictures) == frames:
                break
            shown = frame
        if shown is None:
            raise ValueError(f"{path} holds no frame that can be decoded: give an MP4, WebM or the like.")
        pictures += [_pixels(shown)] * (frames - len(pictures))
    return torch.stack(pictures, 1)


def _eight_bits(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    """Bring greys of 16 or 32 bits, or with fractions, into 0..255, where PIL would clip them."""
    values = np.asarray(image, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{path} holds pixels that are not finite (NaN or infinity): make the picture again.")
    most = values.max(initial=0)
    white = 65535 if image.mode.startswith("I;16") or most > 255 else 1 if image.mode == "F" and most <= 1 else 255
    return Image.fromarray((values / white * 255).clip(0, 255).round().astype(np.uint8))


def _span(container: av.container.InputContainer, path: str | os.PathLike) -> tuple[float, float]:
    """When the first frame of a video begins and the last one ends, in seconds; nothing is decoded."""
    if not container.streams.video:
        raise ValueError(f"{path} has no picture track: give a video.")
    stream = container.streams.video[0]
    if stream.width * stream.height > _MOST_PIXELS:
        raise _enormous(path)
    packets = [(packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.size]
    stamped = [(pts, duration) for pts, duration in packets if pts is not None]
    if not packets:
        raise ValueError(f"{path} holds no frames: it is empty.")
    if stamped:
        unit = float(stream.time_base)
        begin, (last, duration) = min(stamped)[0] * unit, max(stamped)
        end = last * unit + (duration * unit or 1 / _rate(stream))
    else:  # raw streams do not tell
        begin, end = 0.0, len(packets) / _rate(stream)
    if end - begin > _LONGEST:
        raise _long(path)
    return begin, end


def _rate(stream: av.video.stream.VideoStream) -> float:
    return float(stream.average_rate or stream.base_rate or 25)


def _pixels(frame: av.VideoFrame) -> Tensor:
    """``[3, H, W]`` in 0..1, upright."""
    shrink = min(1.0, _FRAME_SIDE / min(frame.width, frame.height))
    width, height = (max(1, round(length * shrink)) for length in (frame.width, frame.height))
    picture = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    return torch.from_numpy(np.rot90(picture, frame.rotation // 90).copy()).permute(2, 0, 1).float() / 255


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[None]:
    """Refuse what is no file with something in it, and what is not text where text is read."""
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"{path} is a folder: give a file.")
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if file.stat().st_size == 0:
        raise ValueError(f"{path} is empty: it has no content.")
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8.") from error


@contextlib.contextmanager
def _container(path: str | os.PathLike, kind: str) -> Iterator[av.container.InputContainer]:
    """Open with PyAV; what goes wrong until the end becomes a sentence.

    PyAV is given the open file, since a name with a colon would look like an address to it.
    """
    import av

    try:
        with open(path, "rb") as file, av.open(file, metadata_errors="ignore") as container:
            yield container
    except av.FFmpegError as error:
        raise ValueError(f"{path} cannot be read as a {kind} ({error.strerror}): give another file.") from error


def _decoded(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator[av.frame.Frame]:
    """Frames in the order in which they are shown. Damaged packets are left out, as players do."""
    import av

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            continue


def _enormous(path: str | os.PathLike) -> ValueError:
    return ValueError(f"{path} is enormous: bring it below {_MOST_PIXELS // 10**6} megapixels first.")


def _long(path: str | os.PathLike) -> ValueError:
    return ValueError(f"{path} lasts more than {_LONGEST // 60} minutes: cut out the part that matters first.")
