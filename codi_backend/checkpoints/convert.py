"""`codi convert`: checkpoint files of any kind, written as one .safetensors file per part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..media.output_folder import check_folder, replacing
from .files import Source, resolve
from .native import cut, open_file, read_parts, save_parts, training_records
from .systems import system_by_edition
from .tensor_file import streamed
from .weight_values import WeightCheck

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def convert(
    source: Source, out: Path, dtype: torch.dtype | None = None, only: Iterable[str] | None = None, force: bool = False
) -> Iterator[Path]:
    """Write every part of a checkpoint into a file of its own, ``<name of the configuration>_<part>.safetensors``.

    Each file holds the configuration of all parts that are converted together. One part at a time is in memory; the
    source stays memory-mapped. All weights are read before the first file is written, to find values that are not
    finite, or would not be in `dtype`.

    Parameters
    ----------
    source : str, path or iterable of paths
        As for `CoDi.load`.
    out : Path
        Folder, made if need be.
    dtype : torch.dtype, optional
        Floating-point type of the written weights; as stored by default.
    only : iterable of str, optional
        Names of the parts to convert; the configuration is reduced to them.
    force : bool
        Overwrite existing files.

    Yields
    ------
    Path
        Each file, after all have been written.

    Raises
    ------
    FileNotFoundError, ValueError
        For a source, weights or a folder that cannot be used, or a file that would be overwritten; nothing is written
        then.
    """
    checkpoint = read_parts(source, only)
    config = checkpoint.config if only is None else cut(checkpoint.config, checkpoint.parts)
    paths = {part: out / f"{config.name}_{part}.safetensors" for part in checkpoint.parts}
    if not force and (there := [path for path in paths.values() if path.exists()]):
        raise ValueError(f"{there[0]} exists: choose another folder, or overwrite it with --force.")
    states = {part: checkpoint.take(part) for part in paths}
    tensors = [tensor for state in states.values() for tensor in state.values()]
    check_folder(out, sum(tensor.numel() * _width(tensor, dtype) for tensor in tensors))
    for part, state in states.items():
        check = WeightCheck(checkpoint.called(part), dtype)
        for key, value in streamed(state):
            check.add(key, value)
        check.finish()
    records = _training(source) if system_by_edition(checkpoint.edition) is None else {}
    with replacing(out) as folder:
        for part, path in paths.items():
            training = [record for name in checkpoint.reports[part].files for record in records.get(name, ())]
            save_parts(folder / path.name, config, {part: states.pop(part)}, training, dtype)
    yield from paths.values()


def _width(tensor: Tensor, dtype: torch.dtype | None) -> int:
    """Bytes per element of a tensor as it is written."""
    return dtype.itemsize if dtype and tensor.is_floating_point() else tensor.element_size()


def _training(source: Source) -> dict[str, list[dict[str, Any]]]:
    """Training records of this pack's files, by file name."""
    return {path.name: training_records(open_file(path)) for path in resolve(source)}
