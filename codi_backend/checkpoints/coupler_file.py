"""Files of couplers: safetensors with the configuration and the training record in the metadata."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..config.coupler import CouplerConfig
from ..config.serialization import from_json
from ..models.coupler import Coupler
from .tensor_file import TensorFile
from .weight_values import require_finite_weights

CONFIG, RECORD = "codi_coupler", "codi_training"


def save_coupler(path: str | os.PathLike, coupler: Coupler, record: Mapping[str, Any] | None = None) -> None:
    """Write a coupler in half precision; the file is written whole or not at all.

    Parameters
    ----------
    record : mapping, optional
        The training record, which JSON can hold.

    Raises
    ------
    ValueError
        If a weight is not finite in half precision.
    """
    path = Path(path)
    state = coupler.state_dict()
    require_finite_weights(state, "The coupler", torch.float16)
    weights = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in state.items()}
    metadata = {
        CONFIG: json.dumps(dataclasses.asdict(coupler.config), sort_keys=True),
        RECORD: json.dumps(dict(record or {})),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(weights, partial, metadata)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_coupler(path: str | os.PathLike) -> Coupler:
    """Read a coupler, in single precision, on the CPU.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file and what is wrong.
    """
    path = Path(path)
    file = TensorFile(path)
    if CONFIG not in file.metadata:
        raise ValueError(f"{path.name} is no coupler: give a file of CoDi Save Coupler or `codi train coupler`.")
    try:
        config = from_json(CouplerConfig, file.metadata[CONFIG])
        for space in config.spaces:
            if len(space.mean) != space.channels or len(space.shape) != len(space.axes):
                raise ValueError(f"the space {space.name!r} has another number of channels or axes than its values")
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read as a coupler: {error}") from error
    with torch.device("meta"):  # nothing is allocated for a configuration that claims too much
        needed = Coupler(config).state_dict()
    weights = {key: file[key].float() for key in file.keys()}
    require_finite_weights(weights, path.name)
    wrong = [key for key in {*needed, *weights} if key not in needed or key not in weights]
    wrong += [key for key in needed if key in weights and needed[key].shape != weights[key].shape]
    if wrong:
        raise ValueError(
            f"{path.name} does not fit its own configuration ({sorted(wrong)[0]}): it is damaged; save it again."
        )
    coupler = Coupler(config)
    coupler.load_state_dict(weights)
    return coupler.eval()


def training_record(path: str | os.PathLike) -> dict[str, Any]:
    """The training record of a coupler's file; empty if there is none."""
    record = json.loads(TensorFile(Path(path)).metadata.get(RECORD, "{}"))
    return record if isinstance(record, dict) else {}
