"""Decoded frames of containers as players show them."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .colour import BT2020, HLG, PQ, differs, is_deep, to_srgb
from .files import UnreadableFile
from .shown import reduced_size

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream

# FFmpeg's numbers of ranges and matrices in frames, and the matrices that its scaler knows.
_LIMITED, _FULL = 1, 2
_RGB, _UNSPECIFIED = 0, 2
_BT709, _BT601 = 1, 5
_SCALER_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}

_MOST_STRETCH = 10  # pixels of a more extreme shape are a mistake in the file


def frame_pixels(frame: VideoFrame, stream: VideoStream, path: str | os.PathLike) -> Tensor:
    """``[3, H, W]`` in 0..1: upright, with square pixels, in sRGB, on white where the frame is transparent.

    The short side is at most 512 pixels.
    """
    codec = stream.codec_context
    transfer = getattr(frame, "color_trc", codec.color_trc)  # PyAV 16 has these in the codec alone
    primaries = getattr(frame, "color_primaries", codec.color_primaries)
    width, height = reduced_size(*_displayed_size(frame, stream))
    if frame.format.has_palette or any(part.is_alpha for part in frame.format.components):
        layout, size = "rgba64le" if is_deep(transfer) else "rgba", {}
    else:
        layout = "rgb48le" if is_deep(transfer) else "rgb24"
        size = {"width": width, "height": height, "interpolation": "AREA"}
    values = frame.reformat(format=layout, **size, **_conversion(frame, transfer, path)).to_ndarray()
    pixels = torch.from_numpy(values.astype(np.float32) / np.iinfo(values.dtype).max)
    colours, opacity = pixels[..., :3], pixels[..., 3:]
    if differs(transfer, primaries):
        colours = to_srgb(colours, transfer, primaries)
    if opacity.shape[-1]:
        colours = colours * opacity + (1 - opacity)
    colours = colours.permute(2, 0, 1)
    if colours.shape[1:] != (height, width):  # scaled after that, so that colours under transparency do not show
        colours = F.interpolate(colours[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)
    return _upright(colours, frame).contiguous()


def _displayed_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height with square pixels: the longer side of a pixel is kept, as in browsers."""
    ratio = float(stream.sample_aspect_ratio or 0) or float(stream.codec_context.sample_aspect_ratio or 0) or 1.0
    if not 1 / _MOST_STRETCH <= ratio <= _MOST_STRETCH:
        ratio = 1.0
    return round(frame.width * max(1.0, ratio)), round(frame.height * max(1.0, 1 / ratio))


def _conversion(frame: VideoFrame, transfer: int, path: str | os.PathLike) -> dict[str, Any]:
    """How the scaler is to convert to RGB."""
    if frame.format.is_rgb or frame.format.has_palette:
        return {}
    matrix = frame.colorspace
    if matrix in (_UNSPECIFIED, _RGB):  # as players guess
        large = frame.width >= 1280 or frame.height > 576
        matrix = BT2020 if transfer in (PQ, HLG) else _BT709 if large else _BT601
    if matrix not in _SCALER_MATRICES:
        raise UnreadableFile(f"{path} has an unusual colour space (number {matrix}): save it in BT.709.")
    full = frame.color_range == _FULL or frame.format.name.startswith("yuvj")
    # RGB has the full range either way. PyAV 16 passes these on only if they differ.
    source, target = (_FULL, _LIMITED) if full else (_LIMITED, _FULL)
    return {"src_colorspace": _SCALER_MATRICES[matrix], "src_color_range": source, "dst_color_range": target}


def _upright(pixels: Tensor, frame: VideoFrame) -> Tensor:
    """``[3, H, W]`` turned and mirrored by the frame's display matrix, to the nearest of the eight orientations."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know another of the frame's side data
        return torch.rot90(pixels, frame.rotation // 90, (1, 2))
    if data is None:
        return pixels
    # [x', y'] = [x, y] @ [[a, b], [c, d]]
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.transpose(1, 2), c, b
    return pixels.flip([dim for dim, sign in ((1, d), (2, a)) if sign < 0])
