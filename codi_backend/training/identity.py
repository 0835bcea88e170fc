"""Digests that identify a run on a user's data: of the contents, and of the initial weights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.contents import Content, Member, first_bytes
from ..data.pairs import Pairs

_WHOLE, _PART = 1 << 18, 1 << 16  # bytes; of longer files the beginning, middle and end are read


def data_digest(pairs: Pairs) -> str:
    """Digest of the contents asked for, or of all if none are, and their order; names of files do not matter."""
    digest = hashlib.sha256()
    for entry in pairs.entries:
        names = pairs.modalities or sorted(entry.contents)
        digest.update(repr([(name, _content(entry.contents[name])) for name in names]).encode())
    return digest.hexdigest()


def weights_digest(modules: Iterable[nn.Module]) -> str:
    """Digest of the values, shapes and names of all weights."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(repr((name, tuple(tensor.shape), tensor.dtype)).encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _content(content: Content) -> Any:
    if isinstance(content, str):
        return content
    try:
        stat = (content.archive if isinstance(content, Member) else content).stat()
        return _of_file(content, stat.st_size, stat.st_mtime_ns)
    except OSError:  # reported where the content is read
        return None


@functools.lru_cache(1 << 20)
def _of_file(content: Path | Member, file_size: int, changed: int) -> tuple[int, str]:
    """Size and digest of a content of a file with this size and time of change; every stage asks for them again."""
    size = content.size if isinstance(content, Member) else file_size
    starts = [0] if size <= _WHOLE else [0, (size - _PART) // 2, size - _PART]
    parts = [first_bytes(content, _WHOLE if size <= _WHOLE else _PART, start) for start in starts]
    return size, hashlib.sha256(b"".join(parts)).hexdigest()
