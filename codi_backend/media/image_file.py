"""Images as Pillow opens them, and as pixels."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import png
from .files import MOST_PIXELS, enormous, readable, without_warnings
from .pixels import displayed

_AVIF_EXIF = re.compile(rb"(infe\x02.{7}|infe\x03.{9})Exif", re.DOTALL)
_SIDE = 2048  # pixels; short sides above that hold nothing that a model would see, and much memory


def read_image(path: str | os.PathLike) -> Tensor:
    """An image file -> pixels ``[3, H, W]`` in 0..1.

    As programs show it: upright, in sRGB, on white where it is transparent; of an animation the first frame. Images of
    4096 pixels and more on the short side are reduced. White is 65535 where greys are integers of 16 or 32 bits, and
    1.0 where they have fractions. Metadata that cannot be read are left out.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file.
    """
    with without_warnings(), opened_image(path, "an image") as image:
        upright = displayed(image, path)
        if (factor := min(upright.size) // _SIDE) > 1:
            upright = upright.reduce(factor)
        return as_tensor(upright)


def as_tensor(image: Image.Image) -> Tensor:
    """RGB -> ``[3, H, W]`` in 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@contextlib.contextmanager
def opened_image(path: str | os.PathLike, kind: str) -> Iterator[Image.Image]:
    """The file with Pillow; what goes wrong until the end of the body becomes a sentence (see `readable`)."""
    with readable(path, kind):
        file, info = _prepared(Path(path).read_bytes())
        try:
            with Image.open(file) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise enormous(path)
                image.info |= info
                yield image
        except Image.DecompressionBombError as error:
            raise enormous(path) from error


def _prepared(data: bytes) -> tuple[io.BytesIO, dict[str, Any]]:
    """What Pillow opens, and what it does not find out itself."""
    if data.startswith(png.SIGNATURE):
        return png.essentials(data)
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        # Broken EXIF data would cost the image, and in AVIF they do not count for the orientation.
        data = _AVIF_EXIF.sub(rb"\1free", data)
        if (at := data.find(b"colrnclx")) >= 0:
            return io.BytesIO(data), {"cicp": (data[at + 9], data[at + 11])}
    return io.BytesIO(data), {}
