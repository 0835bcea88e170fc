"""Prompt embeddings in files: ours, and those that other programs write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_READERS = {
    ".safetensors": load_file,
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".pt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
}
SUFFIXES = tuple(_READERS)
_NAME = "embedding"


def write_embedding(path: str | os.PathLike, embedding: Tensor) -> None:
    """Write ``[B, L, D]`` as safetensors; the file appears whole or not at all."""
    partial = Path(path).with_suffix(".partial")
    save_file({_NAME: embedding.detach().cpu().contiguous()}, partial)
    os.replace(partial, path)


def read_embedding(path: str | os.PathLike) -> Tensor:
    """Read ``[B, L, D]`` from a .safetensors, .npy or .pt file that holds ``[D]``, ``[B, D]`` or ``[B, L, D]``.

    Of several tensors in a file, the one called "embedding" is taken. `ValueError` with a sentence that names the file
    for anything else, also for values that are not finite.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name} is no file of embeddings: give one of {', '.join(SUFFIXES)}.")
    try:
        content = _READERS[path.suffix.lower()](path)
    except MemoryError:
        raise
    except Exception as error:  # an unpickler that stumbles raises whatever comes
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"{path.name} cannot be read ({reason}): it is cut short or of another kind.") from error
    try:
        return as_embedding(_only(content))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def as_embedding(values: Any) -> Tensor:
    """A tensor, an array or a list of numbers as a single-precision embedding ``[B, L, D]``.

    ``[D]`` is one prompt, ``[B, D]`` a batch of prompts. `ValueError` for other shapes, for what are not numbers, for
    none, and for values that are not finite.
    """
    try:
        tensor = values if torch.is_tensor(values) else torch.from_numpy(np.asarray(values, dtype=np.float32))
    except (TypeError, ValueError):
        raise ValueError(f"A {type(values).__name__} is no embedding: a tensor of numbers is needed.") from None
    if not tensor.is_floating_point() or tensor.ndim not in (1, 2, 3) or tensor.numel() == 0:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(
            f"{kind} {list(tensor.shape)} is no embedding: floating-point [D], [B, D] or [B, L, D] is needed."
        )
    if tensor.ndim == 1:
        tensor = tensor[None]
    if tensor.ndim == 2:
        tensor = tensor[:, None]
    tensor = tensor.detach().float()
    if not tensor.isfinite().all():
        raise ValueError("The embedding holds values that are not finite (NaN or infinity).")
    return tensor


def _only(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    tensors = {key: value for key, value in content.items() if torch.is_tensor(value)}
    if _NAME in tensors:
        return tensors[_NAME]
    if len(tensors) != 1:
        raise ValueError(f'{len(tensors)} tensors are in it, and none is called "{_NAME}": give it one.')
    return next(iter(tensors.values()))
