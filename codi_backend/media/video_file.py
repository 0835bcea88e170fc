"""Videos as frames at chosen moments of the timeline of their file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import animation, film
from .files import LONGEST, UnreadableFile, readable, too_long, without_warnings
from .shown import Shown

_ROUNDING = 5e-4  # seconds; containers round stamps by as much


def read_video(path: str | os.PathLike, frames: int, frame_rate: float | None = None, *, start: float = 0.0) -> Tensor:
    """A video file -> `frames` frames ``[3, T, H, W]`` in 0..1.

    Frames are as players show them: upright, with square pixels, in sRGB, on white where they are transparent. Those of
    more than 512 pixels on the short side are reduced. If the size changes on the way, later frames are fitted into the
    first one's, with black bars where the shape differs. Animated GIF, PNG, WebP and AVIF files are videos; a still
    image is one frame that lasts. If the video begins later than the audio, its first frame is shown until then.

    Parameters
    ----------
    path : path
    frames : int
        How many are taken; some will be equal if the video has fewer.
    frame_rate : float, optional
        Take them from `start` on, that many a second, the last frame lasting for ever; otherwise they are spread evenly
        over the video from `start` to its end. Of a video as long as `frames` at the model's frame rate both give the
        same.
    start : float
        Where to begin, in seconds from time 0 of the file (see `media.read`).

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file; also if more than 10 minutes would be spread, and if the video ends before
        `start`.
    """
    if start < 0:
        raise ValueError(f"{path}: a video cannot be read from {start:g} s: give a start of 0 or more.")
    with without_warnings(), readable(path, "a video"):
        source = animation if animation.reads(path) else film
        if frame_rate:
            step = 1 / frame_rate
        else:
            length = source.seconds(path) - start
            if length > LONGEST:
                raise too_long(path)
            step = max(0.0, length) / frames
        moments = start + step * np.arange(frames) + _ROUNDING
        images, end = _pixels(source.frames(path, start), moments)
        if not images:
            raise UnreadableFile(f"{path} holds no frame that can be decoded: give an MP4, WebM or the like.")
        if start and end <= start:
            raise UnreadableFile(f"{path}: the video ends at {end:.2f} s: give a start before that.")
        return torch.stack([_fitted(image, *images[0].shape[1:]) for image in images], 1)


def frames_of(path: str | os.PathLike) -> Iterator[tuple[float, Tensor]]:
    """All frames of a video, one after the other: when each appears, in seconds, and its pixels as of `read_video`.

    Frames whose size differs from the first one's are not fitted. Errors are those of `read_video`.
    """
    source = animation if animation.reads(path) else film
    for frame in source.frames(path, 0.0):
        yield frame.since, frame.pixels()


def _pixels(frames: Iterable[Shown], moments: Iterable[float]) -> tuple[list[Tensor], float]:
    """The pixels of the frame that is shown at each moment, and when the last frame that was looked at goes."""
    images: list[Tensor] = []
    remaining = iter(moments)
    moment = next(remaining, None)
    shown, end = None, 0.0
    for frame in frames:
        if shown is not None and moment < frame.since:
            pixels = shown.pixels()
            while moment is not None and moment < frame.since:
                images.append(pixels)
                moment = next(remaining, None)
        shown, end = frame, frame.until
        if moment is None:
            break
    if shown is not None and moment is not None:
        images += [shown.pixels()] * (1 + sum(1 for _ in remaining))
    return images, end


def _fitted(image: Tensor, height: int, width: int) -> Tensor:
    """``[3, H, W]`` in another size, with black bars where the shape differs."""
    if image.shape[1:] == (height, width):
        return image
    scale = min(height / image.shape[1], width / image.shape[2])
    inner = [max(1, round(scale * side)) for side in image.shape[1:]]
    scaled = F.interpolate(image[None], inner, mode="bilinear", antialias=True)[0].clamp(0, 1)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return F.pad(scaled, (left, width - inner[1] - left, top, height - inner[0] - top))
