"""Prompt embeddings in files: ours, and those that other programs write."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoints.file_kinds import NUMPY, SAFETENSORS, kind_of
from ..checkpoints.pickles import read_torch
from ..checkpoints.state_dict import is_plain
from ..checkpoints.tensor_file import TensorFile
from ..checks.inputs import MAX_EMBEDDING
from ..checks.numbers import require_finite

SUFFIXES = (".safetensors", ".sft", ".npy", ".pt", ".pth", ".bin")
_NAME = "embedding"
# Where programs keep textual inversions: words for CLIP's input, not CLIP's output for a prompt.
_INVERSIONS = re.compile(r"emb_params|string_to_param|string_to_token|clip_[lg]|t5xxl|<.+>|\*")


def write_embedding(path: str | os.PathLike, embedding: Tensor) -> None:
    """Write ``[B, L, D]`` as safetensors; the file appears whole or not at all.

    `ValueError` for values that are not finite.
    """
    path = Path(path)
    require_finite(embedding, f"The embedding for {path.name}", "make the prompt again")
    partial = path.with_suffix(".partial")
    try:
        save_file({_NAME: embedding.detach().cpu().contiguous()}, partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_embedding(path: str | os.PathLike) -> Tensor:
    """Read ``[B, L, D]`` from a file of safetensors, NumPy (.npy) or PyTorch that holds ``[D]``, ``[B, D]`` or that.

    Of several tensors in a file, the one called "embedding" is taken.

    Parameters
    ----------
    path : str or path
        Ends in one of `SUFFIXES`; the kind follows from the content.

    Raises
    ------
    FileNotFoundError, ValueError
        A sentence that names the file, for anything else: also for textual inversions, and for values that are not
        finite.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name} is no file of embeddings: give one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of embeddings {path}.")
    kind = kind_of(path)
    if kind == NUMPY:
        content = _read_array(path)
    elif kind == SAFETENSORS:
        file = TensorFile(path)
        content = {key: file[key] for key in file.keys()}
    else:
        content, _ = read_torch(path)
    try:
        return as_embedding(_only(content))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def as_embedding(values: Any) -> Tensor:
    """A tensor, an array or a list of numbers as a single-precision embedding ``[B, L, D]``.

    ``[D]`` is one prompt, ``[B, D]`` a batch of prompts. `ValueError` for other shapes, for what are not numbers, for
    none, and for values that are not finite or so large that they cannot be an encoder's.
    """
    if isinstance(values, (list, tuple)):
        values = _array(values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        usual = values.dtype.newbyteorder("=") if values.dtype.itemsize <= 8 else np.float64
        values = torch.from_numpy(np.array(values, dtype=usual, order="C"))
    if not torch.is_tensor(values) or values.is_complex() or not is_plain(values):
        kind = f"An array of {values.dtype}" if hasattr(values, "dtype") else f"A {type(values).__name__}"
        raise ValueError(f"{kind} is no embedding: a tensor of numbers is needed.")
    if not values.is_floating_point() or values.ndim not in (1, 2, 3) or values.numel() == 0:
        kind = str(values.dtype).removeprefix("torch.")
        raise ValueError(
            f"{kind} {list(values.shape)} is no embedding: floating-point [D], [B, D] or [B, L, D] is needed."
        )
    tensor = values.detach().float()
    if tensor.ndim == 1:
        tensor = tensor[None]
    if tensor.ndim == 2:
        tensor = tensor[:, None]
    require_finite(tensor, "The embedding", "make it again", MAX_EMBEDDING)
    return tensor


def _array(values: list | tuple) -> np.ndarray | list | tuple:
    """A list of numbers as an array; anything else as it is."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError):  # for example lists of several lengths
        return values
    return array.astype(np.float32) if array.dtype.kind in "fiu" else values


def _read_array(path: Path) -> np.ndarray:
    try:
        # Mapped, a header that claims too much is found out before there is memory for it.
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever comes of a damaged header
        if "Python objects" in str(error) or "pickle" in str(error):
            raise ValueError(
                f"{path.name} holds Python objects and could run code, so it was not loaded: save an array of numbers."
            ) from error
        reason = str(error).split("\n", 1)[0]
        raise ValueError(
            f"{path.name} cannot be read ({reason}): it is cut short or damaged; save it again."
        ) from error


def _only(content: Any) -> Any:
    if not isinstance(content, Mapping):
        return content
    tensors = {key: value for key, value in content.items() if torch.is_tensor(value)}
    if _NAME in tensors:
        return tensors[_NAME]
    if inversion := next((key for key in content if isinstance(key, str) and _INVERSIONS.fullmatch(key)), None):
        raise ValueError(
            f"this is a textual inversion ({inversion}): it is a word for CLIP's input, and no embedding of a prompt; "
            "give one that CLIP's output or CoDi Save Embedding made."
        )
    if len(tensors) != 1:
        raise ValueError(f'{len(tensors)} tensors are in it, and none is called "{_NAME}": give it one.')
    return next(iter(tensors.values()))
