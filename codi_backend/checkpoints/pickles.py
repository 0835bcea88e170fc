"""Reading PyTorch's files without running code."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .file_kinds import PICKLE, TORCH_OLD, TORCH_ZIP, kind_of

# Names that torch's own files import for tensors.
_TENSORS = re.compile(
    r"torch\.(_utils\._rebuild_\w+|\w+Storage|Size|device|storage\.UntypedStorage|serialization\._get_layout"
    r"|nn\.parameter\.\w+|_tensor\._rebuild_from_type_v2|(b?float|int|uint|complex|double|half|bool|q|long|short)\w*)"
    r"|collections\.OrderedDict"
)
_PICKLE_SIZE = 200_000_000  # bytes of a pickle, without its tensors, that are scanned


def read_torch(path: Path) -> tuple[Any, bool]:
    """Read the content of a file of ``torch.save`` on the CPU, and whether its tensors are memory-mapped.

    Raises
    ------
    ValueError
        If the file needs code to run, is damaged or is of another kind; the message names it.
    """
    kind = kind_of(path)
    if kind == PICKLE:
        _refuse_pickle(path)
    if kind not in (TORCH_ZIP, TORCH_OLD):
        raise ValueError(f"{path.name} is not a PyTorch file: choose one that torch.save wrote.")
    mapped = kind == TORCH_ZIP and _can_be_mapped(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors about the file are reported below
            if path.suffix.lower() != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), mapped
            with open(path, "rb") as file:  # torch.load would choose the format by the suffix
                return torch.load(file, map_location="cpu", weights_only=True), False
    except pickle.UnpicklingError as error:
        if culprit := next(_strange_names(path, kind), None):
            raise _could_run_code(path, culprit) from error
        raise _unreadable(path, error) from error
    except MemoryError as error:
        raise ValueError(
            f"{path.name} needs more memory than is available: it is damaged, or too large for this machine."
        ) from error
    except Exception as error:  # an unpickler raises many types
        raise _unreadable(path, error) from error


def _refuse_pickle(path: Path) -> None:
    """Raise a `ValueError` about a pickle that torch did not write; it is not unpickled."""
    if culprit := next(_strange_names(path, PICKLE), None):
        raise _could_run_code(path, culprit)
    raise ValueError(
        f"{path.name} is a pickle of Python objects, not a checkpoint, or is cut short: "
        "save the tensors with torch.save or as safetensors."
    )


def _can_be_mapped(path: Path) -> bool:
    """Whether the archive stores the tensors uncompressed; other programs compress them.

    `ValueError` if the pickle that describes the tensors is damaged; torch does not compare check sums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            for entry in entries:
                if entry.filename.endswith("data.pkl") and entry.CRC:  # 0: written without check sums
                    archive.read(entry)
    except Exception as error:  # zipfile raises many types for a damaged archive
        raise _unreadable(path, error) from error
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def damaged_record(path: Path) -> str | None:
    """Name of a record with a wrong check sum in a file of ``torch.save``; reads the whole file."""
    if kind_of(path) != TORCH_ZIP:
        return None
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            try:
                with archive.open(entry) as record:
                    while record.read(1 << 20):
                        pass
            except Exception:  # zipfile raises many types for a damaged archive
                if entry.CRC:
                    return entry.filename
    return None


def _strange_names(path: Path, kind: str) -> Iterator[str]:
    """Names that a pickle would import, except those for tensors; nothing is imported."""
    for data in _pickles(path, kind):
        strings: list[str] = []
        while data:
            end = 0
            try:
                for operation, argument, position in pickletools.genops(data):
                    end = position + 1
                    name = None
                    if operation.name in ("GLOBAL", "INST"):
                        name = ".".join(argument.split(" ", 1)).replace("__builtin__.", "builtins.")
                    elif operation.name == "STACK_GLOBAL":
                        name = ".".join(strings[-2:]) or "a computed name"
                    elif isinstance(argument, str):
                        strings.append(argument)
                    elif operation.name in ("EXT1", "EXT2", "EXT4"):
                        name = "an extension"
                    if name is not None and not _TENSORS.fullmatch(name):
                        yield name
            except Exception:  # the end, damage, or a tensor's bytes
                break
            data = data[end:] if kind == TORCH_OLD else b""


def _pickles(path: Path, kind: str) -> Iterator[bytes]:
    if kind != TORCH_ZIP:
        with open(path, "rb") as file:
            yield file.read(_PICKLE_SIZE)
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith("data.pkl") and entry.file_size < _PICKLE_SIZE:
                yield archive.read(entry)


def _could_run_code(path: Path, culprit: str) -> ValueError:
    return ValueError(
        f"{path.name} contains more than tensors ({culprit}) and could run code, so it was not loaded: "
        "get it as safetensors."
    )


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = (str(error) or type(error).__name__).split("\n", 1)[0].split(". ", 1)[0]
    return ValueError(
        f"{path.name} cannot be read as a PyTorch checkpoint ({reason}): it is cut short or damaged; fetch it again."
    )
