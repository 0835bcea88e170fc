"""Animated images, and stills, as videos."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import partial

from PIL import Image
from torch import Tensor

from . import png
from .files import require_content
from .image_file import as_tensor, opened_image
from .pixels import displayed
from .shown import Shown, reduced_size

_SHORTEST, _USUAL = 0.011, 0.1  # seconds; browsers show frames for the latter where files ask for less than the former


def reads(path: str | os.PathLike) -> bool:
    """Whether a file is an image, animated or not, by its first bytes."""
    require_content(path)
    with open(path, "rb") as file:
        head = file.read(12)
    if head.startswith(b"\xff\xd8\xff"):
        return not _is_stream(path)
    return (
        head.startswith((png.SIGNATURE, b"GIF8", b"BM", b"II*\0", b"MM\0*"))
        or (head[:4], head[8:]) == (b"RIFF", b"WEBP")
        or head[4:] in (b"ftypavif", b"ftypavis")
    )


def seconds(path: str | os.PathLike) -> float:
    """How long an animation lasts when it is played once; 0 for a still."""
    return length(path)[0] or 0.0


def length(path: str | os.PathLike) -> tuple[float | None, float | None]:
    """Seconds and frames a second, if it is animated."""
    with opened_image(path, "a video") as image:
        spans = list(_spans(image))
    end = spans[-1][1]
    return (None, None) if math.isinf(end) else (end, len(spans) / end)


def frames(path: str | os.PathLike, start: float) -> Iterator[Shown]:
    """All frames; that of a still lasts for ever."""
    with opened_image(path, "a video") as image:
        for since, until in _spans(image):
            yield Shown(since, until, partial(_pixels, image.copy(), path))


def _spans(image: Image.Image) -> Iterator[tuple[float, float]]:
    """When each frame comes and goes, in seconds; the image is at that frame then."""
    count = getattr(image, "n_frames", 1) if image.format != "TIFF" else 1  # pages are no frames
    first = int(bool(image.info.get("default_image")))  # a still for programs that do not know animated PNG
    if count - first < 2:
        yield 0.0, math.inf
        return
    end = 0.0
    for index in range(first, count):
        image.seek(index)
        image.load()
        length = image.info.get("duration", 0) / 1000
        begin, end = end, end + (length if length >= _SHORTEST else _USUAL)
        yield begin, end


def _pixels(image: Image.Image, path: str | os.PathLike) -> Tensor:
    upright = displayed(image, path)
    return as_tensor(upright.resize(reduced_size(*upright.size), Image.Resampling.BOX))


def _is_stream(path: str | os.PathLike) -> bool:
    """Whether a file of JPEG images is a video, as FFmpeg judges."""
    import av

    with open(path, "rb") as file, av.open(file) as container:
        return container.format.name == "mjpeg"
