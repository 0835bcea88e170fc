"""The kind of a file by its first bytes, whatever its name, and messages for files without tensors."""

from __future__ import annotations

import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

SAFETENSORS, TORCH_ZIP, TORCH_OLD, PICKLE, NUMPY = "safetensors", "torch zip", "torch old", "pickle", "numpy"
MAX_HEADER = 100_000_000  # bytes, the format's own limit

_AGAIN = "fetch the file itself again"
_UNPACK = "unpack it, and choose the checkpoint file inside"
# Offset, bytes, kind and remedy.
_MARKS = (
    (0, b"version https://git-lfs.github.com/spec/", "a git-lfs pointer, not the file itself",
     "run 'git lfs pull' in its folder, or fetch the file itself"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", _AGAIN),
    (0, b"\xff\xd8\xff", "a JPEG image", _AGAIN),
    (0, b"GIF8", "a GIF image", _AGAIN),
    (0, b"II*\0", "a TIFF image", _AGAIN),
    (0, b"MM\0*", "a TIFF image", _AGAIN),
    (8, b"WEBP", "a WebP image", _AGAIN),
    (8, b"WAVE", "a WAV file", _AGAIN),
    (8, b"AVI ", "an AVI video", _AGAIN),
    (4, b"ftyp", "a media file (MP4 or its kind)", _AGAIN),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video", _AGAIN),
    (0, b"OggS", "an Ogg file", _AGAIN),
    (0, b"fLaC", "a FLAC file", _AGAIN),
    (0, b"ID3", "an MP3 file", _AGAIN),
    (0, b"%PDF", "a PDF document", _AGAIN),
    (0, b"GGUF", "a GGUF file of llama.cpp", "get the weights as safetensors"),
    (0, b"ggjt", "a GGML file of llama.cpp", "get the weights as safetensors"),
    (0, b"lmgg", "a GGML file of llama.cpp", "get the weights as safetensors"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", "get the weights as safetensors"),
    (4, b"TFL3", "a TensorFlow Lite model", "get the weights as safetensors"),
    (0, b"\x08\x01\x12", "a TensorFlow SavedModel", "get the weights as safetensors"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", _AGAIN),
    (257, b"ustar", "a tar archive", _UNPACK),
)  # fmt: skip
_ONNX = re.compile(rb"\x08[\x03-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]")  # version of the format, then a field
_MSGPACK = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9.)[\w./-]", re.DOTALL)  # a map with names
_MAGIC = (b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"L119547037146038801333356L\n.", b"I119547037146038801333356\n.")
_TEXT = re.compile(r"[^\x00-\x08\x0e-\x1f]*")
_SCAN = 1_000_000  # bytes that are scanned for a pickle in text form


def kind_of(path: Path) -> str:
    """Determine the kind of a file that holds tensors or Python objects.

    Parameters
    ----------
    path : Path
        A file that exists.

    Returns
    -------
    {"safetensors", "torch zip", "torch old", "pickle", "numpy"}
        A safetensors file has a complete header, a torch file a complete archive. "torch old" is torch's format before
        version 1.6; "pickle" is one that torch did not write.

    Raises
    ------
    ValueError
        For other files; the message names the file, its kind and the remedy.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(4096)
        if size == 0:
            raise ValueError(f"{path.name} is empty: {_AGAIN}.")
        # First, since the length of a header may equal the mark of another kind.
        length = int.from_bytes(head[:8], "little")
        if head[8:9] == b"{" and length <= MAX_HEADER:
            if 8 + length > size:
                raise ValueError(
                    f"{path.name} is cut short: its safetensors header needs {length} bytes, and the file has {size}; "
                    "fetch it again."
                )
            return SAFETENSORS
        if head.startswith(b"PK\x03\x04"):
            return _zip_kind(path, file, head)
        if head.startswith(b"\x93NUMPY"):
            return NUMPY
        if re.match(rb"\x80[\x02-\x05]", head) or any(magic in head[:40] for magic in _MAGIC):
            return TORCH_OLD if any(magic in head[:40] for magic in _MAGIC) else PICKLE
        for offset, mark, what, remedy in _MARKS:
            if head.startswith(mark, offset):
                raise ValueError(f"{path.name} is {what}: {remedy}.")
        text = _readable(head)
        if head[8:9] == b"{" and text is None:
            raise ValueError(
                f"{path.name} claims a safetensors header of {length} bytes, which is impossible: it is damaged or "
                "of another kind; fetch it again."
            )
        if text is not None:
            _refuse_markup(path.name, text)
        if _is_pickle(head + file.read(_SCAN)):
            return PICKLE
    if text is not None:
        raise ValueError(
            f"{path.name} is a text, not a checkpoint (it begins with {' '.join(text.split())[:40]!r}): {_AGAIN}."
        )
    for pattern, what in ((_ONNX, "an ONNX model"), (_MSGPACK, "a msgpack file, as Flax writes")):
        if pattern.match(head):
            raise ValueError(f"{path.name} is {what}: get the weights as safetensors.")
    raise ValueError(f"{path.name} is neither safetensors nor a PyTorch file, and its kind is unknown: {_AGAIN}.")


def _zip_kind(path: Path, file: BinaryIO, head: bytes) -> str:
    name_length = struct.unpack_from("<H", head, 26)[0] if len(head) >= 30 else 0
    first = head[30 : 30 + name_length].decode("utf-8", "replace")
    try:
        names = zipfile.ZipFile(file).namelist()
    except Exception as error:  # zipfile raises many types for a damaged archive
        what = "a PyTorch file" if first.endswith("data.pkl") else "a zip archive"
        raise ValueError(f"{path.name} is {what} that is cut short or damaged: fetch it again.") from error
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        raise ValueError(
            f"{path.name} is a TorchScript program, not a checkpoint: get its weights as safetensors, "
            "or as a state dict."
        )
    if "data.pkl" in inner:
        return TORCH_ZIP
    if names and all(name.endswith(".npy") for name in names):
        raise ValueError(f"{path.name} is an archive of NumPy arrays (.npz): save the tensors as safetensors.")
    holds = f" (it holds {names[0]!r})" if names else ""
    raise ValueError(f"{path.name} is a zip archive, not a checkpoint{holds}: {_UNPACK}.")


def _refuse_markup(name: str, text: str) -> None:
    text = text.lstrip("\ufeff \t\r\n").lower()
    if re.match(r"<(!doctype|html|head|body|\?xml|!--|error)", text):
        raise ValueError(f"{name} is a web page, not a checkpoint: {_AGAIN}.")
    if re.match(r'(\{\s*("|\})|\[\s*[\[{"\d\]-])', text):
        raise ValueError(f"{name} is a JSON text, such as a server's message, not a checkpoint: {_AGAIN}.")


def _readable(head: bytes) -> str | None:
    """Decode the bytes as text, if they are text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head[: len(head) // 2 * 2].decode("utf-16", "replace")
    else:
        try:
            text = head.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.start < len(head) - 4:  # not only a truncated character
                return None
            text = head[: error.start].decode("utf-8")
    return text if _TEXT.fullmatch(text) else None


def _is_pickle(data: bytes) -> bool:
    """Whether the bytes are a complete pickle; old protocols have no mark at the beginning."""
    try:
        operations = [operation.name for operation, _, _ in pickletools.genops(data)]
    except Exception:  # pickletools raises many types
        return False
    return len(operations) > 2
