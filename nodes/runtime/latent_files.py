"""Files of latents with any number of streams: ours, and those of the stock node Save Latent."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .joint_latents import RECORDS, joined, records_of
from .latent_packing import split, split_masks

SUFFIX = ".latent"
# The key of our metadata, and of the stock node's tensor and its mark.
_METADATA, _STOCK, _STOCK_MARK = "codi_latent", "latent_tensor", "latent_format_version_0"
_VERSION = 1
_REMEDY = "choose a file of CoDi Save Joint Latent or of the stock Save Latent"
# Old files of the stock node hold scaled latents of Stable Diffusion 1.
_OLD_SCALE = 0.18215


def write_latent(path: Path, latent: dict, metadata: dict[str, str]) -> None:
    """Write a LATENT with masks, names and extra keys; the file appears whole or not at all.

    A latent of one stream can be read by the stock node Load Latent as well. Extra keys that are neither tensors nor
    plain values are left out, with a warning.

    Raises
    ------
    ValueError
        A sentence about the input `filename_prefix` if the file cannot be written.
    """
    streams, masks, records = split(latent["samples"]), split_masks(latent), []
    tensors: dict[str, Tensor] = {}
    for number, (stream, mask, record) in enumerate(zip(streams, masks, records_of(latent)), start=1):
        tensors[_STOCK if len(streams) == 1 else f"stream_{number}"] = stream
        if mask is not None:
            tensors[f"mask_{number}"] = mask
        plain = {key: value for key, value in record["keys"].items() if _is_plain(key, value)}
        tensors |= {f"key_{number}.{k}": v for k, v in record["keys"].items() if torch.is_tensor(v)}
        records.append({"name": record["name"], "keys": plain})
    description: dict[str, Any] = {"version": _VERSION, "streams": records}
    if "batch_index" in latent:
        description["batch_index"] = [int(index) for index in latent["batch_index"]]
    # Cloned, since streams that a sampler returns share their memory, which safetensors refuses.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    tensors[_STOCK_MARK] = torch.tensor([])
    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, partial, metadata | {_METADATA: json.dumps(description)})
        os.replace(partial, path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"filename_prefix: {path.name} could not be written ({error}); free space, or save elsewhere."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _is_plain(key: str, value: Any) -> bool:
    if torch.is_tensor(value):
        return False
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        logging.warning(
            "CoDi Save Joint Latent: %s of the latent is of type %s and is not saved.", key, type(value).__name__
        )
        return False
    return True


def read_latent(path: Path) -> dict:
    """Read a LATENT, of ours or of the stock node. `ValueError` with a sentence that names the file."""
    try:
        with safe_open(path, "pt") as file:
            return _latent_of(file, path)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(f"{path.name} is no latent, or it is damaged; {_REMEDY}.") from error


def _latent_of(file, path: Path) -> dict:
    keys, metadata = set(file.keys()), file.metadata() or {}
    if _METADATA not in metadata:
        if _STOCK not in keys:
            raise ValueError(f"{path.name} holds no latent; {_REMEDY}.")
        samples = _floats(file, _STOCK, path)
        return {"samples": samples if _STOCK_MARK in keys else samples / _OLD_SCALE}
    try:
        description = json.loads(metadata[_METADATA])
        version, records = description["version"], description["streams"]
        records = [{"name": record["name"], "keys": dict(record["keys"])} for record in records]
        numbers = [int(index) for index in description.get("batch_index", ())]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} has damaged metadata; save the latent again.") from error
    if version != _VERSION:
        raise ValueError(f"{path.name} is of version {version} of the format; update this pack to read it.")
    wanted = [_STOCK] if len(records) == 1 else [f"stream_{number}" for number in range(1, len(records) + 1)]
    if not records or not keys.issuperset(wanted):
        raise ValueError(f"{path.name} lacks a stream of its {len(records)}; save the latent again.")
    streams = [_floats(file, name, path) for name in wanted]
    masks = []
    for number, record in enumerate(records, start=1):
        name, prefix = f"mask_{number}", f"key_{number}."
        masks.append(file.get_tensor(name).float() if name in keys else None)
        record["keys"] |= {k.removeprefix(prefix): file.get_tensor(k) for k in keys if k.startswith(prefix)}
    latent = joined([record["keys"] for record in records], streams, masks, records)
    if len(records) == 1 and not records[0]["name"]:
        del latent[RECORDS]
    return latent | ({"batch_index": numbers} if "batch_index" in description else {})


def _floats(file, key: str, path: Path) -> Tensor:
    """A tensor of latents in single precision, as the stock node gives it."""
    tensor = file.get_tensor(key)
    if not tensor.is_floating_point() or tensor.ndim < 2 or 0 in tensor.shape:
        raise ValueError(f"{path.name} holds {list(tensor.shape)} {tensor.dtype} where a latent should be; {_REMEDY}.")
    return tensor.float()
