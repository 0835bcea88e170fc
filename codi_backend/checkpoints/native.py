"""Checkpoints: reading this pack's and the published files part by part, and writing this pack's.

This pack's files are safetensors whose keys begin with a part's name and whose metadata hold configuration and training
record. Part names are ``diffuser.<network>``, ``prompt_encoders.<modality>`` and ``autoencoders.<modality>``; where
networks share layers, also ``contexts.<kind>`` and ``diffuser.time``. A file may hold any number of parts, and a
model may be spread over any number of files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..config import CoDiConfig
from . import codi as published
from .files import Source, missing_shards, resolve
from .parts import FIELDS, TIME, build, on_meta
from .quantisation import check_quantised, dequantised, quantised_keys
from .systems import holds_published, system_by_edition, system_of
from .tensor_file import TensorFile
from .weight_values import require_finite_weights

State = dict[str, Tensor]

# Suffixes of the scales of quantized weights.
_SCALES = (".scale_weight", ".weight_scale", ".scale_input", ".input_scale", ".absmax", ".quant_map")
_PREFIXES = ("diffuser", "contexts", "prompt_encoders", "autoencoders")


@dataclass(frozen=True)
class PartReport:
    """Files of one part that was read, its number of tensors, and the number of further tensors, which are ignored."""

    files: tuple[str, ...]
    found: int
    ignored: int


@dataclass
class Checkpoint:
    """A checkpoint that was read: configuration, state dict of each part, and training records.

    Attributes
    ----------
    edition : str
        "codi-any-to-any" for files of this pack; "published", or "published, without latent alignment" for the first
        edition; "published Versatile Diffusion".
    unknown : int
        Tensors that belong to no part, such as the schedule in published files.
    """

    config: CoDiConfig
    edition: str
    parts: dict[str, State] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)
    reports: dict[str, PartReport] = field(default_factory=dict)
    unknown: int = 0

    def take(self, part: str, needed: Mapping[str, Tensor] | None = None, quantised: bool = False) -> State:
        """Remove and return the state dict of a part; `ValueError` if it is incomplete, or of another model.

        `needed` are the tensors of the part, if it has been built already. With `quantised`, quantised weights stay
        quantised, with their scales beside them; otherwise they are dequantised to single precision.
        """
        ours = system_by_edition(self.edition) is None
        state, _ = fit(part, self.parts.pop(part), self.config, self.reports[part].files, needed, strict=ours)
        return state if quantised else dequantised(state)

    def called(self, part: str) -> str:
        """Description of a part and its files, for messages."""
        return f"{part} of {' and '.join(self.reports[part].files)}"


def open_file(path: Path) -> TensorFile:
    """Open a checkpoint file; prefixes of wrappers are removed from the tensors' names."""
    return TensorFile(path, _known)


def _known(keys: Iterable[str]) -> bool:
    keys = list(keys)
    return any(key.startswith(tuple(f"{prefix}." for prefix in _PREFIXES)) for key in keys) or holds_published(keys)


def read_parts(source: Source, only: Iterable[str] | None = None) -> Checkpoint:
    """Read a checkpoint, or only some of its parts.

    Tensors are memory-mapped where the file allows it, so unused tensors are not read.

    Parameters
    ----------
    source : str, path or iterable of paths
        "mini", "emoji", "vd-mini", files that `save_parts` wrote, or any of the published files (.pth or
        .safetensors); or a folder of these. No tensor may be in two files, except in published files with the same
        values.
    only : iterable of str, optional
        Names of the parts to read; all by default.

    Raises
    ------
    FileNotFoundError, ValueError
        The message names the file and the remedy.
    """
    wanted = None if only is None else set(only)
    files = [open_file(path) for path in resolve(source)]
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
        one, other = files[ours.index(True)].path.name, files[ours.index(False)].path.name
        raise ValueError(f"{one} is a file of this pack and {other} a published one: load files of one kind together.")
    if wanted is not None and (missing := sorted(wanted - checkpoint.parts.keys())):
        raise ValueError(f"The checkpoint has no {', '.join(missing)}: {remedy(missing[0], checkpoint.edition)}.")
    return checkpoint


def remedy(part: str, edition: str) -> str:
    """Remedy for a missing part, for messages."""
    system = system_by_edition(edition)
    if system is not None and part in system.FILES:
        return f"load {system.FILES[part]} too, which holds it"
    return "add the file that holds it"


def _read_ours(files: list[TensorFile], wanted: set[str] | None) -> Checkpoint:
    checkpoint: Checkpoint | None = None
    holders: dict[str, dict[str, None]] = {}
    origins: dict[str, str] = {}
    for file in files:
        name, config = file.path.name, read_config(file)
        if checkpoint is None:
            checkpoint = Checkpoint(config, "codi-any-to-any")
        elif config != checkpoint.config:
            raise ValueError(
                f"{name} belongs to another model than the files before it, such as {files[0].path.name}: "
                "load files of one model together."
            )
        checkpoint.training += training_records(file)
        for key in file.keys():
            prefix, _, rest = key.partition(".")
            network, _, rest = rest.partition(".")
            part = f"{prefix}.{network}"
            if prefix not in _PREFIXES or not rest:
                raise ValueError(
                    f"{name} holds {key}, which belongs to no part of a CoDi model: it is damaged, or of another kind."
                )
            if key in origins:
                raise ValueError(held_twice(part, origins[key], name))
            origins[key] = name
            if wanted is None or part in wanted:
                checkpoint.parts.setdefault(part, {})[rest] = file[key]
                holders.setdefault(part, {})[name] = None
    for part, state in checkpoint.parts.items():
        checkpoint.reports[part] = PartReport(tuple(holders[part]), len(state), 0)
    return checkpoint


def held_twice(part: str, one: str, other: str) -> str:
    """Message about a part that two files of this pack hold."""
    return f"{one} and {other} both hold {part}: load only one of them, or move the other out of the folder."


def read_config(file: TensorFile) -> CoDiConfig:
    """Read the configuration in a file of this pack; `ValueError` names the file and the wrong field."""
    try:
        return CoDiConfig.from_json(file.metadata["codi_config"])
    except ValueError as error:
        raise ValueError(f"{file.path.name}: {error}") from error


def training_records(file: TensorFile) -> list[dict[str, Any]]:
    """Read the records of the training stages in a file of this pack; `ValueError` if they are damaged."""
    try:
        records = json.loads(file.metadata.get("codi_training", "[]"))
    except (ValueError, RecursionError):
        records = None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(
            f"{file.path.name}: its training record (codi_training) is not a list of JSON objects: "
            "it is damaged; fetch or convert it again."
        )
    return records


def _read_published(files: list[TensorFile], wanted: set[str] | None) -> Checkpoint:
    system = system_of((file.path.name, file.keys()) for file in files)
    states: dict[str, State] = {}
    origins: dict[str, dict[str, str]] = {}
    unknown = 0
    for file in files:
        for key in file.keys():
            part = system.part_of(key)
            if part is None:
                unknown += 1
            elif wanted is None or part in wanted:
                state, origin = states.setdefault(part, {}), origins.setdefault(part, {})
                if key not in state or _replaces(key, part, file, state[key], origin[key], system.FILES[part]):
                    state[key], origin[key] = file[key], file.path.name
    parts = {part: system.from_published(part, state, system.CONFIG) for part, state in states.items()}
    config = system.configure({p: {k: v.shape for k, v in s.items()} for p, s in parts.items()})
    checkpoint = Checkpoint(config, system.edition(config), unknown=unknown)
    for part, state in parts.items():
        holders = tuple(dict.fromkeys(origins[part].values()))
        checkpoint.parts[part], ignored = fit(part, state, config, holders)
        checkpoint.reports[part] = PartReport(holders, len(checkpoint.parts[part]), ignored)
    if system is published and (unaligned := published.unaligned(config)):
        warnings.warn(
            f"This edition's networks for {', '.join(unaligned)} have no latent alignment: "
            "streams do not attend to each other, as with alignment none.",
            stacklevel=4,
        )
    return checkpoint


def _replaces(key: str, part: str, file: TensorFile, value: Tensor, holder: str, home: str) -> bool:
    """Whether a file's copy of a tensor replaces another file's, if their values differ."""
    if same_values(value, file[key]):
        return False
    later = second_has_precedence(part, key, holder, file.path.name, home)
    warnings.warn(
        f"{holder} and {file.path.name} both hold {part}: {home} is used, which is the published file for it.",
        stacklevel=5,
    )
    return later


def second_has_precedence(part: str, key: str, one: str, other: str, home: str) -> bool:
    """Whether the second of two published files has precedence for a tensor whose values differ.

    Published files hold more than they need. The published file of the part, `home`, has precedence. `ValueError` if
    both files have that name, or neither.
    """
    named = [Path(name).stem == Path(home).stem for name in (one, other)]
    if named[0] == named[1]:
        raise ValueError(f"{one} and {other} both hold {part}, with different values of {key}: load only one of them.")
    return named[1]


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bytes, NaN included; both are read."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))


def fit(
    part: str,
    state: Mapping[str, Tensor],
    config: CoDiConfig,
    holders: Sequence[str],
    needed: Mapping[str, Tensor] | None = None,
    strict: bool = False,
) -> tuple[State, int]:
    """Select the tensors that a part needs, and count the others. Scales of quantised weights are selected too.

    Parameters
    ----------
    part : str
    state : dict of str to Tensor
    config : CoDiConfig
        Configuration of the model.
    holders : sequence of str
        File names, for messages.
    needed : dict of str to Tensor, optional
        Tensors of the part, if it has been built already.
    strict : bool
        Refuse tensors that are not needed, and accept quantised weights, as for files of this pack.

    Raises
    ------
    ValueError
        If a tensor is missing, or has another shape or kind of number. The message names the files.
    """
    holder = " and ".join(holders)
    if needed is None:
        with on_meta(f"{part} in {holder}"):
            needed = build(part, config).state_dict()
    if missing := sorted(needed.keys() - state.keys()):
        absent = ", ".join(missing_shards(holders))
        what = f"add {absent}, which is not among the files" if absent else "it is incomplete; fetch it again"
        raise ValueError(
            f"{holder} lacks {len(missing)} of the {len(needed)} tensors of {part}, such as {missing[0]}: {what}."
        )
    scales = check_quantised(state, part, holder) if strict else set()
    weights = quantised_keys(scales)
    surplus = state.keys() - needed.keys() - scales
    if strict and surplus:
        raise ValueError(
            f"{holder} holds {len(surplus)} tensors that {part} does not have, such as {min(surplus)}: "
            "it belongs to another model."
        )
    for key, model in needed.items():
        if state[key].shape != model.shape:
            raise ValueError(
                f"{holder} holds {key} of {part} as {list(state[key].shape)} where {list(model.shape)} is needed: "
                "it belongs to another model."
            )
        if key not in weights and _number(state[key]) != _number(model):
            stored = str(state[key].dtype).removeprefix("torch.")
            raise ValueError(
                f"{holder} holds {key} of {part} as {stored}, where {_number(model)} is needed: "
                "it is quantized or damaged; get it in fp16, bf16 or fp32."
            )
    if scaled := sorted(key for key in surplus if key.endswith(_SCALES)):
        raise ValueError(
            f"{holder} holds {part} with scales beside its weights ({scaled[0]}), which are not applied here: "
            "get it in fp16, bf16 or fp32."
        )
    return {key: state[key] for key in (*needed, *sorted(scales))}, len(surplus)


def _number(value: Tensor) -> str:
    if value.is_floating_point():
        return "a floating-point number"
    return "a complex number" if value.is_complex() else "a whole number"


def save_parts(
    path: str | os.PathLike,
    config: CoDiConfig,
    parts: Mapping[str, Mapping[str, Tensor]],
    training: Iterable[dict[str, Any]] = (),
    dtype: torch.dtype | None = None,
) -> None:
    """Write parts into one file, in `dtype` if given; a failed write leaves no file.

    `ValueError` for values that are not finite, or would not be in `dtype`; the message names the tensors.
    """
    path = Path(path)
    for part, state in parts.items():
        require_finite_weights(state, f"{part} for {path.name}", dtype)
    tensors = {
        f"{part}.{key}": (value.to(dtype) if dtype and value.is_floating_point() else value).detach().cpu().contiguous()
        for part, state in parts.items()
        for key, value in state.items()
    }
    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, partial, {"codi_config": config.to_json(), "codi_training": json.dumps(list(training))})
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def cut(config: CoDiConfig, parts: Iterable[str]) -> CoDiConfig:
    """Reduce a configuration to some of the model's parts.

    `ValueError` for networks without the layers that they share, or such layers without a network.
    """
    kept = set(parts)
    networks = {part.removeprefix("diffuser.") for part in kept if part.startswith("diffuser.")} - {"time"}
    kinds = {part.removeprefix("contexts.") for part in kept if part.startswith("contexts.")}
    if config.diffuser.contexts and len({bool(networks), bool(kinds), TIME in kept}) > 1:
        raise ValueError(
            f"Networks of this model share layers: choose diffuser.{' or diffuser.'.join(config.diffuser.networks)}, "
            f"contexts.{' or contexts.'.join(config.diffuser.contexts)}, and {TIME} together."
        )
    absent = {field: None for part, field in FIELDS.items() if part not in kept}
    return dataclasses.replace(config, diffuser=config.diffuser.only(networks, kinds), **absent)
