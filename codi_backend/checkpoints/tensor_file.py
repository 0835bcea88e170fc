"""Opening files of tensors of any kind, with lazy reading and without running code."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .file_kinds import NUMPY, SAFETENSORS, kind_of
from .pickles import read_torch
from .state_dict import find_state_dict, plain_names
from .weight_values import WeightCheck


class TensorFile:
    """The tensors of a safetensors or PyTorch file, memory-mapped. The content determines the kind, not the name.

    Parameters
    ----------
    path : Path
    known : callable, optional
        Whether some of the given names belong to a model. If given, prefixes of wrappers are removed, see
        `state_dict.plain_names`.

    Attributes
    ----------
    metadata : dict of str to str
        Metadata of safetensors; empty for other files.

    Raises
    ------
    FileNotFoundError, ValueError
        The message names the file, the problem and the remedy.
    """

    def __init__(self, path: Path, known: Callable[[Iterable[str]], bool] | None = None):
        if path.is_dir():
            raise FileNotFoundError(f"{path} is a folder: choose the checkpoint files in it.")
        if not path.is_file():
            raise FileNotFoundError(f"There is no checkpoint file {path}.")
        self.path = path
        self.metadata: dict[str, str] = {}
        self._mapped = True
        self._tensors: dict[str, Tensor] | None = None
        self._known = known
        kind = kind_of(path)
        if kind == NUMPY:
            raise ValueError(f"{path.name} is a NumPy array, not a checkpoint: save the tensors as safetensors.")
        if kind == SAFETENSORS:
            self._open_safetensors()
            stored = list(self._file.keys())
        else:
            content, self._mapped = read_torch(path)
            self._tensors = find_state_dict(content, path.name)
            stored = list(self._tensors)
        self._names = plain_names(stored, known, path.name) if known else dict(zip(stored, stored))

    def keys(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, key: str) -> Tensor:
        if self._tensors is not None:
            tensor = self._tensors[self._names[key]]
        else:
            try:
                tensor = self._file.get_tensor(self._names[key])
            except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
                raise ValueError(
                    f"{self.path.name} holds {key} in a form that this version of PyTorch cannot read ({error}): "
                    "get it in fp16, bf16 or fp32."
                ) from error
        storage = tensor.untyped_storage()
        if self._mapped and storage.nbytes() == tensor.nbytes:  # otherwise the storage has several tensors
            storage.codi_origin = self.path, self._known, key
        return tensor

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        if self._tensors is not None:
            return tuple(self._tensors[self._names[key]].shape)
        return tuple(self._file.get_slice(self._names[key]).get_shape())

    def _open_safetensors(self) -> None:
        if twice := _twice(self.path):
            raise ValueError(f"{self.path.name} holds {twice} twice: it is damaged; fetch or convert it again.")
        try:
            self._file = safe_open(self.path, "pt")
        except (SafetensorError, OSError, ValueError, MemoryError) as error:
            reason = repr(str(error).removeprefix("Error while deserializing header: "))[1:-1]  # names may have breaks
            cut = "it is cut short" if "incomplete" in reason else "its header is damaged"
            raise ValueError(
                f"{self.path.name} cannot be read as safetensors ({reason}): {cut}; fetch or convert it again."
            ) from error
        self.metadata = self._file.metadata() or {}


def streamed(state: Mapping[str, Tensor], limit: int = 1 << 28) -> Iterator[tuple[str, Tensor]]:
    """Iterate over a state dict, with at most `limit` bytes of its files in memory.

    Pages of a mapped file that were read stay in memory until the mapping is closed. So tensors of a `TensorFile`, and
    views of them, are read through other mappings, which are renewed after `limit` bytes.
    """
    files: dict[Path, TensorFile] = {}
    read = 0
    for key, value in state.items():
        path, known, name = getattr(value.untyped_storage(), "codi_origin", (None, None, None))
        if path is not None:
            if read + value.nbytes > limit:
                files.clear()
                read = 0
            read += value.nbytes
            if path not in files:
                files[path] = TensorFile(path, known)
            value = files[path][name].as_strided(value.shape, value.stride(), value.storage_offset())
        yield key, value
        del value


def convert(state: dict[str, Tensor], dtype: torch.dtype, what: str = "The state dict") -> None:
    """Convert the floating-point tensors of a state dict to `dtype`, in place in the dict, and check all values.

    Tensors that already have that type stay memory-mapped.

    Parameters
    ----------
    state : dict of str to Tensor
    dtype : torch.dtype
        A floating-point type.
    what : str
        The subject of messages, such as "diffuser.image of a.safetensors".

    Raises
    ------
    ValueError
        For values that are not finite, or would not be in `dtype`; the message names the tensors.
    """
    if not dtype.is_floating_point:
        raise ValueError(
            f"Weights cannot be converted to {dtype}: choose a floating-point type, such as torch.float16."
        )
    different = {key: v for key, v in state.items() if v.is_floating_point() and v.dtype != dtype}
    check = WeightCheck(what, dtype)
    for key, value in state.items():
        if key not in different:
            check.add(key, value)
    for key, value in streamed(different, sum(v.numel() for v in different.values()) * dtype.itemsize // 32):
        check.add(key, value)
        state[key] = value.to(dtype)
    check.finish()


def _twice(path: Path) -> str | None:
    """A duplicate name in the header of a safetensors file, of which readers would use one without a warning."""
    found: list[str] = []

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            found.append(next(name for name in names if names.count(name) > 1))
        return values

    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        try:
            json.loads(file.read(length), object_pairs_hook=fields)
        except (ValueError, RecursionError):  # safetensors reports these errors
            return None
    return found[0] if found else None
