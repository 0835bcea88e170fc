"""Latents that ComfyUI or another program saved, in pairs: a folder with a subfolder for each stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.file_kinds import SAFETENSORS, kind_of
from ..checkpoints.pickles import read_torch
from ..checkpoints.tensor_file import TensorFile
from ..checks.inputs import MAX_LATENT
from ..checks.numbers import require_finite

ENDINGS = (".safetensors", ".sft", ".latent", ".pkl", ".pt")
_KEYS = ("latent_tensor", "latents", "samples")
_OLD_SCALE = 1 / 0.18215  # ComfyUI's first .latent files were scaled


def stream_folders(folder: Path) -> list[Path]:
    """The subfolders that hold files of latents, in the order of their names."""
    if not folder.is_dir():
        return []
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [path for path in subfolders if _files(path)]


def read_pairs(folder: Path) -> dict[str, Tensor]:
    """Latents ``[N, C, ...]`` by the name of the subfolder.

    Files of equal names in the subfolders belong together, and in each of them the latents in their order. A file is
    what *Save Latent* or *Save Training Dataset* of ComfyUI write, or has one tensor ``[n, C, ...]``.

    Raises
    ------
    ValueError
        With a sentence about the file that is missing, cannot be read, or does not go with the others.
    """
    folders = stream_folders(folder)
    if len(folders) < 2:
        raise ValueError(
            f"{folder} has {len(folders)} subfolders with files of latents: make one for each stream, such as image "
            "and audio, with files of equal names."
        )
    files = {path.name: _files(path) for path in folders}
    names = sorted(set.union(*(set(found) for found in files.values())))
    for stream, found in files.items():
        if missing := [name for name in names if name not in found]:
            raise ValueError(
                f"{folder / stream} has no file {missing[0]}, which another stream has: add it, or remove that."
            )
    return {stream: _joined([found[name] for name in names]) for stream, found in files.items()}


def _files(folder: Path) -> dict[str, Path]:
    """Files of latents by their names without endings."""
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS and path.is_file()}


def _joined(paths: list[Path]) -> Tensor:
    found: list[Tensor] = []
    for path in paths:
        latents = read_latents(path)
        if found and latents.shape[1:] != found[0].shape[1:]:
            raise ValueError(
                f"{path} holds latents of shape {list(latents.shape[1:])}, and {paths[0].name} of "
                f"{list(found[0].shape[1:])}: save all of a stream in one size."
            )
        found.append(latents)
    return torch.cat(found)


def read_latents(path: Path) -> Tensor:
    """The latents of a file, ``[n, C, ...]`` in single precision. `ValueError` with a sentence if it has none."""
    if kind_of(path) == SAFETENSORS:
        file = TensorFile(path)
        content: Any = {key: file[key] for key in file.keys()}
    else:
        content, _ = read_torch(path)
    scale = _OLD_SCALE if "latent_tensor" in content and "latent_format_version_0" not in content else 1.0
    if isinstance(content, Mapping):
        tensors = {key: value for key, value in content.items() if torch.is_tensor(value) and value.ndim > 1}
        content = next((content[key] for key in _KEYS if key in content), next(iter(tensors.values()), None))
    if isinstance(content, list):
        parts = [one.get("samples") if isinstance(one, Mapping) else one for one in content]
        if not parts or not all(torch.is_tensor(one) and one.shape[1:] == parts[0].shape[1:] for one in parts):
            raise ValueError(f"{path} holds latents of several shapes or none: save one size and one stream.")
        content = torch.cat(parts)
    if not torch.is_tensor(content) or content.ndim < 2 or not content.is_floating_point() or not content.numel():
        raise ValueError(f"{path} holds no latents: give files of Save Latent, or a tensor [n, C, ...] of floats.")
    latents = content.float() * scale
    require_finite(latents, f"{path.name}: this latent", "save it again", MAX_LATENT)
    return latents
