"""Modalities of files by the endings of their names."""

from __future__ import annotations

ENDINGS = {
    "text": ("txt", "caption"),
    "image": ("png", "jpg", "jpeg", "jpe", "jfif", "webp", "avif", "bmp", "dib", "tif", "tiff", "tga", "jp2")
    + ("ppm", "pgm", "pbm", "pnm"),
    "video": ("mp4", "webm", "mkv", "mov", "avi", "m4v", "gif", "apng", "mpg", "mpeg", "ts", "m2ts", "mts", "flv")
    + ("f4v", "wmv", "asf", "3gp", "3g2", "ogv", "vob", "mxf", "avifs"),
    "audio": ("wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "m4b", "aac", "aiff", "aif", "aifc", "wma", "mka")
    + ("weba", "ac3", "amr", "au", "caf"),
}
_MODALITY = {ending: name for name, endings in ENDINGS.items() for ending in endings}

ARCHIVES = ("zip", "7z", "rar", "tgz", "tbz", "tbz2", "txz", "tzst", "gz", "bz2", "xz", "zst", "lz4")
"""Of packed files, which are not read."""

MANIFESTS = ("csv", "tsv", "jsonl", "ndjson", "json")

_RAW = ("raw", "cr2", "cr3", "nef", "arw", "dng")
CONVERT = dict.fromkeys(("heic", "heif", "hif", "jxl", "svg", "psd", "exr", "hdr", *_RAW), "PNG or JPEG")
CONVERT |= dict.fromkeys(("mid", "midi", "ape", "wv", "dsf"), "WAV or FLAC")
"""Endings of files that users expect to be read but are not, and what to convert them to."""

HEAD = 32  # bytes at the beginning of a file that `modality_of` may want to see


def modality_of(ending: str, head: bytes = b"") -> str | None:
    """The modality of a file with that ending (without its dot, in any case); None if it is not known.

    Parameters
    ----------
    ending : str
    head : bytes
        The first `HEAD` bytes. WebP and AVIF files may be animated, which makes them videos; see `may_be_animated`.
    """
    if may_be_animated(ending) and _animated(head):
        return "video"
    return _MODALITY.get(ending.lower())


def may_be_animated(ending: str) -> bool:
    """Whether the ending alone does not decide between image and video."""
    return ending.lower() in ("webp", "avif")


def _animated(head: bytes) -> bool:
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
        return bool(head[20:21] and head[20] & 2)
    return head[4:12] == b"ftypavis"
