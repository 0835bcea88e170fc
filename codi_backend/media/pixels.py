"""Pillow images as programs show them."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms

from ..checks.numbers import require_finite
from .colour import differs, to_srgb
from .files import UnreadableFile

_SRGB_GAMMA = 0.45455  # as the gAMA chunk of a PNG states it
_MOST_LIGHT = 16.0  # times white; brighter pixels are of an image whose white is not 1.0
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # by the colour spaces of profiles


def displayed(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    """The image in RGB: upright, in sRGB, on white where it is transparent.

    Metadata that cannot be read are left out.

    Raises
    ------
    ValueError
        Pixels that are not finite, or brighter than can be right for their type.
    """
    eight_bits = _eight_bits(image, path)
    alpha = eight_bits.getchannel("A") if eight_bits.mode in ("LA", "RGBA") else None
    colours = eight_bits.convert(eight_bits.mode[:-1]) if alpha else eight_bits
    rgb = _in_srgb(colours, image.info)
    if alpha:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    orientation = _orientation(image)
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def _eight_bits(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    """The image in L, RGB, CMYK or LAB, the first two with alpha if anything may be transparent."""
    if image.mode[0] in "IF":
        return _from_numbers(image, path)
    transparent = "transparency" in image.info
    if image.mode in ("P", "PA"):
        return image.convert("RGBA")
    if image.mode in ("L", "1", "RGB") and transparent:
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        return image
    return image.convert({"1": "L", "La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGB"))


def _from_numbers(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    """Greys of 16 or 32 bits, or with fractions, where Pillow would clip. White follows from the type alone."""
    values = np.asarray(image, dtype=np.float32)
    require_finite(values, str(path), "make the image again")
    white, number = (1.0, "1.0") if image.mode == "F" else (65535.0, "65535")
    most = float(values.max(initial=0))
    if most > (_MOST_LIGHT if image.mode == "F" else white):
        raise UnreadableFile(f"{path} holds greys up to {most:g}, where white is {number}: divide them so that it is.")
    grey = Image.fromarray((values / white * 255).clip(0, 255).round().astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _in_srgb(colours: Image.Image, info: dict[str, Any]) -> Image.Image:
    """L, RGB, CMYK or LAB -> RGB, by the first colour description in the order of the PNG standard."""
    if "cicp" in info:
        return _decoded(colours.convert("RGB"), *info["cicp"])
    if "icc_profile" in info:
        with contextlib.suppress(Exception):  # a profile that is broken, or of another kind, costs the conversion alone
            source = ImageCms.ImageCmsProfile(io.BytesIO(info["icc_profile"]))
            mode = _MODES[source.profile.xcolor_space.strip()]
            if (colours.mode, mode) == ("L", "RGB"):
                return _converted(colours.convert("RGB"), source)
            if colours.mode == mode:
                return _converted(colours, source)
    if colours.mode == "LAB":
        return _converted(colours, ImageCms.createProfile("LAB"))
    rgb = colours.convert("RGB")
    gamma = info.get("gamma", _SRGB_GAMMA)
    if "srgb" in info or not 0.1 < gamma < 10 or abs(gamma - _SRGB_GAMMA) < 0.05:
        return rgb
    return rgb.point([round(255 * (level / 255) ** (_SRGB_GAMMA / gamma)) for level in range(256)] * 3)


def _decoded(rgb: Image.Image, primaries: int, transfer: int) -> Image.Image:
    if not differs(transfer, primaries):
        return rgb
    values = to_srgb(torch.from_numpy(np.array(rgb)).float() / 255, transfer, primaries)
    return Image.fromarray((values * 255).round().byte().numpy())


def _converted(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")


def _orientation(image: Image.Image) -> int | None:
    with contextlib.suppress(Exception):  # broken metadata raise errors of many kinds
        return image.getexif().get(ExifTags.Base.Orientation)
    return None
