"""Digests that identify a run on a user's data: of the contents, and of the initial weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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
        size = content.size if isinstance(content, Member) else content.stat().st_size
        starts = [0] if size <= _WHOLE else [0, (size - _PART) // 2, size - _PART]
        parts = [first_bytes(content, _WHOLE if size <= _WHOLE else _PART, start) for start in starts]
    except OSError:  # reported where the content is read
        return None
    return size, hashlib.sha256(b"".join(parts)).hexdigest()
