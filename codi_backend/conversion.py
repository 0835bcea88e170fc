"""`codi convert`: checkpoint files of any kind as one .safetensors a part, with the configuration inside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from .checkpoints import Source, cut, fit, read_parts, resolve, save_parts
from .tensor_files import TensorFile

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def convert(
    source: Source, out: Path, dtype: torch.dtype | None = None, only: Iterable[str] | None = None, force: bool = False
) -> Iterator[Path]:
    """Write every part of a checkpoint into a file of its own, ``<name of the configuration>_<part>.safetensors``.

    The files belong together: each holds the configuration of all that is converted at once. One part at a time is in
    memory; the source stays memory-mapped.

    Parameters
    ----------
    source : str, path or iterable of paths
        As for `CoDi.load`.
    out : Path
        Folder, made if need be.
    dtype : torch.dtype, optional
        What the weights are brought to; as stored by default.
    only : iterable of str, optional
        Names of the parts to convert; the configuration is then that of a model with just these.
    force : bool
        Overwrite files that are there.

    Yields
    ------
    Path
        Each file, when it is written.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence about what is wrong with the source, or the file that would be overwritten; then nothing is
        written.
    """
    checkpoint = read_parts(source, only)
    config = checkpoint.config if only is None else cut(checkpoint.config, checkpoint.parts)
    paths = {part: out / f"{config.name}_{part}.safetensors" for part in checkpoint.parts}
    if not force and (there := [path for path in paths.values() if path.exists()]):
        raise ValueError(f"{there[0]} exists: choose another folder, or overwrite it with --force.")
    out.mkdir(parents=True, exist_ok=True)
    for part, path in paths.items():
        holders = checkpoint.reports[part].files
        state, _ = fit(part, checkpoint.parts.pop(part), config, " and ".join(holders))
        save_parts(path, config, {part: state}, _training(source, holders), dtype)
        yield path


def _training(source: Source, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The training records of those files of ours that have these names."""
    files = [TensorFile(path) for path in resolve(source) if path.name in names and path.suffix == ".safetensors"]
    return [record for file in files for record in json.loads(file.metadata.get("codi_training", "[]"))]
