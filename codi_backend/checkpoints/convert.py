"""`codi convert`: checkpoint files of any kind, written as one .safetensors file per part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import CoDiConfig
from ..media.output_folder import check_folder, replacing
from .files import Source, resolve
from .native import cut, open_file, read_parts, save_parts, training_records
from .parts import build, on_meta
from .quantisation import FORMATS, PLAIN, dequantised, quantisable_layers, quantise, quantised_keys
from .systems import system_by_edition
from .tensor_file import streamed
from .weight_values import WeightCheck

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def convert(
    source: Source,
    out: Path,
    dtype: str | None = None,
    only: Iterable[str] | None = None,
    force: bool = False,
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
    dtype : {"fp32", "fp16", "bf16", "fp8", "int8"}, optional
        Floating-point type of the written weights; as stored by default. With "fp8" and "int8" the layers that
        `quantisable_layers` names are quantised with a scale per tensor, and all other weights are in half precision.
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
        For a source, type, weights or a folder that cannot be used, or a file that would be overwritten. Nothing is
        written then.
    """
    if dtype is not None and dtype not in (*DTYPES, *FORMATS):
        raise ValueError(f"{dtype!r} is no type of weights here: choose one of {', '.join((*DTYPES, *FORMATS))}.")
    checkpoint = read_parts(source, only)
    config = checkpoint.config if only is None else cut(checkpoint.config, checkpoint.parts)
    paths = {part: out / f"{config.name}_{part}.safetensors" for part in checkpoint.parts}
    if not force and (there := [path for path in paths.values() if path.exists()]):
        raise ValueError(f"{there[0]} exists: choose another folder, or overwrite it with --force.")
    form, target = FORMATS.get(dtype), PLAIN if dtype in FORMATS else DTYPES.get(dtype)
    states = {part: checkpoint.take(part, quantised=True) for part in paths}
    layers = {part: _layers(part, config) if form else set() for part in paths}
    size = sum(
        value.numel() * _width(key, value, layers[part], target)
        for part, state in states.items()
        for key, value in state.items()
    )
    check_folder(out, size)
    for part, state in states.items():
        # Weights that are quantised, or have been, fit into any type, as their scale does.
        check, finite = WeightCheck(checkpoint.called(part), target), WeightCheck(checkpoint.called(part))
        eight_bits = quantised_keys(state) | {f"{layer}.weight" for layer in layers[part]}
        for key, value in streamed(state):
            (finite if key in eight_bits else check).add(key, value)
        check.finish()
        finite.finish()
    records = _training(source) if system_by_edition(checkpoint.edition) is None else {}
    with replacing(out) as folder:
        for part, path in paths.items():
            training = [record for name in checkpoint.reports[part].files for record in records.get(name, ())]
            state = states.pop(part)
            if dtype is not None:
                state = dequantised(state)
            if form is not None:
                state = quantise(state, layers[part], form)
            save_parts(folder / path.name, config, {part: state}, training, None if form else target)
    yield from paths.values()


def _layers(part: str, config: CoDiConfig) -> set[str]:
    with on_meta(part):
        return quantisable_layers(part, build(part, config))


def _width(key: str, value: Tensor, layers: set[str], target: torch.dtype | None) -> int:
    """Bytes per element of a tensor as it is written."""
    layer, _, name = key.rpartition(".")
    if name == "weight" and layer in layers:
        return 1
    return target.itemsize if target and value.is_floating_point() else value.element_size()


def _training(source: Source) -> dict[str, list[dict[str, Any]]]:
    """Training records of this pack's files, by file name."""
    return {path.name: training_records(open_file(path)) for path in resolve(source)}
