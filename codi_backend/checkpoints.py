"""Checkpoints: reading ours and the published ones, part by part, and writing ours.

Ours are safetensors whose keys begin with a part's name and whose metadata hold configuration and training record. Part
names are ``diffuser.<network>``, ``prompt_encoders.<modality>`` and ``autoencoders.<modality>``; where networks share
layers, also ``contexts.<kind>`` and ``diffuser.time``. A file may hold any number of parts, and a model may be spread
over any number of files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import mini, published, vd_mini
from .config import CoDiConfig
from .parts import FIELDS, TIME, build
from .systems import holds_published, system_by_edition, system_of
from .tensor_files import TensorFile

State = dict[str, Tensor]
Source = str | os.PathLike | Iterable[str | os.PathLike]

SHIPPED = {"mini": mini, "vd-mini": vd_mini}

_PREFIXES = ("diffuser", "contexts", "prompt_encoders", "autoencoders")


@dataclass(frozen=True)
class PartReport:
    """What was read of one part: its files, how many tensors it needs, how many the files hold beyond that."""

    files: tuple[str, ...]
    found: int
    ignored: int


@dataclass
class Checkpoint:
    """What was read: the configuration, the state dict of each part, and how it was trained.

    Attributes
    ----------
    edition : str
        "codi-any-to-any" for ours; "published", or "published, without latent alignment" for the first edition;
        "published Versatile Diffusion".
    unknown : int
        Tensors that belong to no part, such as the schedule in published files.
    """

    config: CoDiConfig
    edition: str
    parts: dict[str, State] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)
    reports: dict[str, PartReport] = field(default_factory=dict)
    unknown: int = 0


def resolve(source: Source) -> list[Path]:
    """Files that a source means: "mini" or "vd-mini" (the shipped models), a path, or several paths."""
    paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not paths:
        raise ValueError("No checkpoint file was given.")
    if len(paths) == 1 and paths[0] in SHIPPED:
        folder = SHIPPED[paths[0]].WEIGHTS
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"The shipped model's weights are missing from {folder}: install the pack again.")
        return files
    return [Path(p) for p in paths]


def read_parts(source: Source, only: Iterable[str] | None = None) -> Checkpoint:
    """Read a checkpoint, or only some of its parts.

    Tensors are memory-mapped where the file allows it: what is not used is not read.

    Parameters
    ----------
    source : str, path or iterable of paths
        "mini", "vd-mini", files that `save_parts` wrote, or any of the published files (.pth or .safetensors).
    only : iterable of str, optional
        Names of the parts to read; the others are not touched.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file and the remedy.
    """
    wanted = None if only is None else set(only)
    files = [TensorFile(path) for path in resolve(source)]
    strange = [f for f in files if "codi_config" not in f.metadata and not holds_published(f.keys())]
    if strange:
        raise ValueError(
            f"{strange[0].path.name} holds no CoDi configuration and no keys of the published files: "
            "it is not a checkpoint of CoDi."
        )
    ours = ["codi_config" in f.metadata for f in files]
    if all(ours):
        checkpoint = _read_ours(files, wanted)
    elif not any(ours):
        checkpoint = _read_published(files, wanted)
    else:
        raise ValueError("Files of this pack and published files were given together: load files of one kind.")
    if wanted is not None and (missing := sorted(wanted - checkpoint.parts.keys())):
        raise ValueError(f"The checkpoint has no {', '.join(missing)}: {remedy(missing[0], checkpoint.edition)}.")
    return checkpoint


def remedy(part: str, edition: str) -> str:
    """What to do about a missing part."""
    system = system_by_edition(edition)
    if system is not None and part in system.FILES:
        return f"load {system.FILES[part]} too, which holds it"
    return "add the file that holds it"


def _read_ours(files: list[TensorFile], wanted: set[str] | None) -> Checkpoint:
    checkpoint: Checkpoint | None = None
    for file in files:
        config = CoDiConfig.from_json(file.metadata["codi_config"])
        if checkpoint is None:
            checkpoint = Checkpoint(config, "codi-any-to-any")
        elif config != checkpoint.config:
            raise ValueError(
                f"{file.path.name} belongs to another model than the files before it: load files of one model together."
            )
        checkpoint.training += json.loads(file.metadata.get("codi_training", "[]"))
        for key in file.keys():
            prefix, _, rest = key.partition(".")
            name, _, rest = rest.partition(".")
            part = f"{prefix}.{name}"
            if prefix not in _PREFIXES or not rest:
                raise ValueError(f"{file.path.name} holds {key}, which belongs to no part of a CoDi model.")
            if wanted is None or part in wanted:
                checkpoint.parts.setdefault(part, {})[rest] = file[key]
    for part, state in checkpoint.parts.items():
        holders = tuple(f.path.name for f in files if any(key.startswith(f"{part}.") for key in f.keys()))
        checkpoint.reports[part] = PartReport(holders, len(state), 0)
    return checkpoint


def _read_published(files: list[TensorFile], wanted: set[str] | None) -> Checkpoint:
    system = system_of((file.path.name, file.keys()) for file in files)
    states: dict[str, State] = {}
    holders: dict[str, list[str]] = {}
    unknown = 0
    for file in files:
        for key in file.keys():
            part = system.part_of(key)
            if part is None:
                unknown += 1
            elif wanted is None or part in wanted:
                states.setdefault(part, {})[key] = file[key]
                if file.path.name not in holders.setdefault(part, []):
                    holders[part].append(file.path.name)
    parts = {part: system.from_published(part, state, system.CONFIG) for part, state in states.items()}
    config = system.configure({p: {k: v.shape for k, v in s.items()} for p, s in parts.items()})
    checkpoint = Checkpoint(config, system.edition(config), unknown=unknown)
    for part, state in parts.items():
        checkpoint.parts[part], ignored = fit(part, state, config, " and ".join(holders[part]))
        checkpoint.reports[part] = PartReport(tuple(holders[part]), len(checkpoint.parts[part]), ignored)
    if system is published and (deaf := published.deaf(config)):
        warnings.warn(
            f"This edition's networks for {', '.join(deaf)} have no latent alignment: "
            "streams will not hear each other, as with alignment none.",
            stacklevel=4,
        )
    return checkpoint


def fit(part: str, state: Mapping[str, Tensor], config: CoDiConfig, holder: str) -> tuple[State, int]:
    """Keep what a part needs, and count the rest. `ValueError` if something is missing or has another shape."""
    with torch.device("meta"):
        needed = {key: tuple(value.shape) for key, value in build(part, config).state_dict().items()}
    if missing := sorted(needed.keys() - state.keys()):
        raise ValueError(
            f"{holder} lacks {len(missing)} of the {len(needed)} tensors of {part}, such as {missing[0]}: "
            "it is incomplete; fetch it again."
        )
    for key, shape in needed.items():
        if tuple(state[key].shape) != shape:
            raise ValueError(
                f"{holder} holds {key} of {part} as {list(state[key].shape)} where {list(shape)} is needed: "
                "it belongs to another model."
            )
    return {key: state[key] for key in needed}, len(state.keys() - needed.keys())


def save_parts(
    path: str | os.PathLike,
    config: CoDiConfig,
    parts: Mapping[str, Mapping[str, Tensor]],
    training: Iterable[dict[str, Any]] = (),
    dtype: torch.dtype | None = None,
) -> None:
    """Write parts into one file, in `dtype` if given; the file appears whole or not at all."""
    tensors = {
        f"{part}.{key}": (value.to(dtype) if dtype and value.is_floating_point() else value).detach().cpu().contiguous()
        for part, state in parts.items()
        for key, value in state.items()
    }
    partial = Path(path).with_suffix(".partial")
    save_file(tensors, partial, {"codi_config": config.to_json(), "codi_training": json.dumps(list(training))})
    os.replace(partial, path)


def cut(config: CoDiConfig, parts: Iterable[str]) -> CoDiConfig:
    """The configuration of a model with some of its parts.

    `ValueError` for networks without what they share with others, which cannot be run, or the other way around.
    """
    kept = set(parts)
    networks = {part.removeprefix("diffuser.") for part in kept if part.startswith("diffuser.")} - {"time"}
    kinds = {part.removeprefix("contexts.") for part in kept if part.startswith("contexts.")}
    if config.diffuser.contexts and len({bool(networks), bool(kinds), TIME in kept}) > 1:
        raise ValueError(
            f"The networks of this model share layers: name diffuser.{' or diffuser.'.join(config.diffuser.networks)}, "
            f"contexts.{' or contexts.'.join(config.diffuser.contexts)}, and {TIME} together."
        )
    absent = {field: None for part, field in FIELDS.items() if part not in kept}
    return dataclasses.replace(config, diffuser=config.diffuser.only(networks, kinds), **absent)
