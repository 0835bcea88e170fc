"""The chunks of PNG files: those that make up the pixels, and the metadata of the others about how to show them."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"}
_MOST_METADATA = 64 * 2**20  # bytes; more is an attack
# Texts in which programs keep the orientation, under the names that Pillow looks for.
_EXIF_TEXT, _XMP_TEXT = b"Raw profile type exif", b"XML:com.adobe.xmp"


def essentials(data: bytes) -> tuple[io.BytesIO, dict[str, Any]]:
    """A PNG file without metadata, and the metadata for showing it.

    Pillow refuses images whose texts are long or whose metadata are broken, so it does not get them.

    Returns
    -------
    file : BytesIO
    info : dict
        Some of "icc_profile", "exif", "Raw profile type exif", "XML:com.adobe.xmp", "gamma", "srgb", as in
        Pillow's `Image.info`, and "cicp", the primaries and the transfer by their code points.
    """
    kept, info = [SIGNATURE], {}
    for kind, chunk in _chunks(data):
        if kind == b"tRNS":
            chunk = _as_pillow_reads(chunk, depth=data[24], colours=data[25])
        if kind in _PIXELS:
            kept.append(chunk)
        else:
            with contextlib.suppress(zlib.error, ValueError, IndexError, struct.error):
                info |= _fact(kind, chunk[8:-4])
    return io.BytesIO(b"".join(kept)), info


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kinds, and whole chunks; the last one may be cut off."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at : at + 12 + length]
        at += 12 + length


def _as_pillow_reads(chunk: bytes, depth: int, colours: int) -> bytes:
    """A chunk that names the transparent colour, at the depth to which Pillow brings the pixels before it compares."""
    if colours == 0 and depth in (2, 4):
        values = [value * 255 // (2**depth - 1) for value in struct.unpack(">H", chunk[8:-4])]
    elif colours == 2 and depth == 16:  # colours that differ in the lower byte alone become transparent, too
        values = [value >> 8 for value in struct.unpack(">3H", chunk[8:-4])]
    else:
        return chunk
    content = struct.pack(f">{len(values)}H", *values)
    return chunk[:8] + content + struct.pack(">I", zlib.crc32(b"tRNS" + content))


def _fact(kind: bytes, content: bytes) -> dict[str, Any]:
    if kind == b"eXIf":
        return {"exif": b"Exif\0\0" + content.removeprefix(b"Exif\0\0")}
    if kind == b"gAMA":
        return {"gamma": struct.unpack(">I", content)[0] / 1e5}
    if kind == b"sRGB":
        return {"srgb": content[0]}
    if kind == b"cICP":
        return {"cicp": (content[0], content[1])}
    if kind == b"iCCP":
        _, rest = content.split(b"\0", 1)
        return {"icc_profile": _inflated(rest[1:])}
    if kind in (b"tEXt", b"zTXt") and content.startswith(_EXIF_TEXT):
        text = content[len(_EXIF_TEXT) + 1 :]
        return {_EXIF_TEXT.decode(): (_inflated(text[1:]) if kind == b"zTXt" else text).decode("latin-1")}
    if kind == b"iTXt" and content.startswith(_XMP_TEXT):
        compressed, rest = content[len(_XMP_TEXT) + 1], content[len(_XMP_TEXT) + 3 :]
        _, _, text = rest.split(b"\0", 2)
        return {_XMP_TEXT.decode(): (_inflated(text) if compressed else text).decode()}
    return {}


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MOST_METADATA)
