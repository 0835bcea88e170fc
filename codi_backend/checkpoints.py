"""Checkpoint files: safetensors whose keys begin with a part's name and whose metadata hold configuration and record.

A file may hold any number of parts, and a model may be spread over any number of files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import mini
from .config import CoDiConfig

State = dict[str, Tensor]

_PREFIXES = ("diffuser", "prompt_encoders", "autoencoders")


@dataclass
class Checkpoint:
    """What was read: the configuration, the state dict of each part, and how it was trained.

    Part names are ``diffuser.<network>``, ``prompt_encoders.<modality>`` and ``autoencoders.<modality>``.
    """

    config: CoDiConfig
    parts: dict[str, State] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)


def resolve(source: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """Files that a source means: "mini" (the shipped model), a path, or several paths."""
    if source == "mini":
        files = sorted(mini.WEIGHTS.glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"The shipped model's weights are missing from {mini.WEIGHTS}: install the pack again.")
        return files
    paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not paths:
        raise ValueError("No checkpoint file was given.")
    return [Path(p) for p in paths]


def read_parts(
    source: str | os.PathLike | Iterable[str | os.PathLike], only: Iterable[str] | None = None
) -> Checkpoint:
    """Read a checkpoint, or only some of its parts.

    Parameters
    ----------
    source : str, path or iterable of paths
        "mini", or files that `save_parts` wrote.
    only : iterable of str, optional
        Names of the parts to read; the others are not touched.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file and the remedy.
    """
    wanted = None if only is None else set(only)
    checkpoint: Checkpoint | None = None
    for path in resolve(source):
        if not path.is_file():
            raise FileNotFoundError(f"There is no checkpoint file {path}.")
        try:
            opened = safe_open(path, "pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path.name} cannot be read as safetensors ({error}): it is cut short or of another kind; "
                "fetch or convert it again."
            ) from error
        with opened as file:
            metadata = file.metadata() or {}
            if "codi_config" not in metadata:
                raise ValueError(f"{path.name} holds no CoDi configuration: it is not a checkpoint of this pack.")
            config = CoDiConfig.from_json(metadata["codi_config"])
            if checkpoint is None:
                checkpoint = Checkpoint(config)
            elif config != checkpoint.config:
                raise ValueError(
                    f"{path.name} belongs to another model than the files before it: load files of one model together."
                )
            checkpoint.training += json.loads(metadata.get("codi_training", "[]"))
            for key in file.keys():
                prefix, name, rest = key.split(".", 2)
                part = f"{prefix}.{name}"
                if prefix not in _PREFIXES:
                    raise ValueError(f"{path.name} holds {key}, which belongs to no part of a CoDi model.")
                if wanted is None or part in wanted:
                    checkpoint.parts.setdefault(part, {})[rest] = file.get_tensor(key)
    if wanted is not None and (missing := sorted(wanted - checkpoint.parts.keys())):
        raise ValueError(f"The checkpoint has no {', '.join(missing)}: add the file that holds it.")
    return checkpoint


def save_parts(
    path: str | os.PathLike,
    config: CoDiConfig,
    parts: dict[str, State],
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
