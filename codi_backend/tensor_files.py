"""Opening files of tensors, whatever their kind, without reading more than is asked for and without running code."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


class TensorFile:
    """The tensors of a .safetensors, .pth, .pt or .ckpt file, memory-mapped.

    `FileNotFoundError` or `ValueError` with a sentence that names the file, what is wrong with it and the remedy.

    Attributes
    ----------
    metadata : dict of str to str
        Of safetensors; empty for the others.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise FileNotFoundError(f"There is no checkpoint file {path}.")
        self.path = path
        self._mapped = True
        self.metadata: dict[str, str] = {}
        with open(path, "rb") as file:
            head = file.read(256).lstrip().lower()
        if head.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise ValueError(f"{path.name} is a web page, not a checkpoint: fetch the file itself again.")
        if path.suffix == ".safetensors":
            self._open_safetensors()
        else:
            self._tensors: dict[str, Tensor] | None = _state_dict(self._unpickle(), path.name)

    def keys(self) -> Iterator[str]:
        return iter(self._tensors if self._tensors is not None else self._file.keys())

    def __getitem__(self, key: str) -> Tensor:
        tensor = self._tensors[key] if self._tensors is not None else self._file.get_tensor(key)
        storage = tensor.untyped_storage()
        if self._mapped and storage.nbytes() == tensor.nbytes:  # else the key would not lead to the storage
            storage.codi_origin = self.path, key
        return tensor

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        if self._tensors is not None:
            return tuple(self._tensors[key].shape)
        return tuple(self._file.get_slice(key).get_shape())

    def _open_safetensors(self) -> None:
        self._tensors = None
        try:
            self._file = safe_open(self.path, "pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{self.path.name} cannot be read as safetensors ({error}): it is cut short or of another kind; "
                "fetch or convert it again."
            ) from error
        self.metadata = self._file.metadata() or {}

    def _unpickle(self) -> Any:
        try:
            try:
                return torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                self._mapped = False  # a file in torch's old format
                return torch.load(self.path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "Weights only load failed" in str(error) and "Unsupported" in str(error):
                raise ValueError(
                    f"{self.path.name} contains more than tensors ({_culprit(error)}) and could run code, so it was "
                    "not loaded: get it as safetensors."
                ) from error
            raise self._unreadable(error) from error
        except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ValueError:
        reason = str(error).split("\n", 1)[0].split(". ", 1)[0]
        return ValueError(
            f"{self.path.name} cannot be read as a PyTorch checkpoint ({reason}): it is cut short or of another kind; "
            "fetch it again."
        )


def convert(state: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Bring the floating-point tensors of a state dict to `dtype`, in place in the dict.

    What is read of a mapped file stays in memory until the mapping goes. So tensors of a `TensorFile`, and views of
    them, are read through another mapping, which is made anew again and again.
    """
    different = [key for key, value in state.items() if value.is_floating_point() and value.dtype != dtype]
    limit = sum(state[key].numel() for key in different) * dtype.itemsize / 32
    files: dict[Path, TensorFile] = {}
    read = 0
    for key in different:
        value = state[key]
        path, name = getattr(value.untyped_storage(), "codi_origin", (None, None))
        if path is not None:
            if read + value.nbytes > limit:
                files.clear()
                read = 0
            read += value.nbytes
            if path not in files:
                files[path] = TensorFile(path)
            value = files[path][name].as_strided(value.shape, value.stride(), value.storage_offset())
        state[key] = value.to(dtype)


def _culprit(error: Exception) -> str:
    words = str(error).split("Unsupported", 1)[1].split()
    return next((word.rstrip(".,") for word in words if "." in word), "code")


def _state_dict(content: Any, name: str) -> dict[str, Tensor]:
    """The dict of tensors in what a file holds, which training frameworks wrap in another dict."""
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {key: v for key, v in content.items() if torch.is_tensor(v)} if isinstance(content, dict) else {}
    if not tensors:
        raise ValueError(f"{name} holds no tensors by name: it is not a checkpoint.")
    return tensors
