"""`codi inspect`: what checkpoint files hold and whether it is whole, from names, shapes and types alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from .checkpoints import Source, State, fit, resolve
from .config import CoDiConfig
from .parts import part_names
from .systems import holds_published, system_by_edition, system_of
from .tensor_files import TensorFile

OURS, PUBLISHED = "this pack's", "published"


@dataclass(frozen=True)
class PartFindings:
    """One part in one file.

    Attributes
    ----------
    found, ignored : int
        Tensors that the part needs, and those of its own that it does not need.
    parameters, megabytes : int, float
        Of the tensors found.
    dtypes : tuple of str
        As stored.
    problem : str or None
        Why the part cannot be loaded from this file.
    """

    name: str
    found: int
    ignored: int
    parameters: int
    dtypes: tuple[str, ...]
    megabytes: float
    problem: str | None


@dataclass
class FileFindings:
    """One file.

    Attributes
    ----------
    kind : str or None
        "this pack's" or "published"; None if the file could not be read.
    edition, model : str or None
        As in `Checkpoint`, and the name of its configuration.
    megabytes : float or None
        Size of the whole file; None if it is not there.
    unknown : int
        Tensors that belong to no part.
    training : list of dict
        The records of the stages that trained it.
    problem : str or None
        Why the file cannot be loaded.
    """

    path: str
    kind: str | None = None
    edition: str | None = None
    model: str | None = None
    megabytes: float | None = None
    parts: list[PartFindings] = field(default_factory=list)
    unknown: int = 0
    training: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None


@dataclass(frozen=True)
class MissingPart:
    """A part that a model has and none of the files holds; of published models, with the file that holds it."""

    model: str
    part: str
    file: str | None


@dataclass(frozen=True)
class Inspection:
    """Findings about a selection of files."""

    files: list[FileFindings]
    missing: list[MissingPart]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with the files and with what they hold of their parts."""
        return not any(file.problem or any(part.problem for part in file.parts) for file in self.files)

    def to_json(self) -> str:
        return json.dumps({"sound": self.sound, **dataclasses.asdict(self)}, indent=2)

    def __str__(self) -> str:
        lines = [line for file in self.files for line in _file_lines(file)]
        for model in dict.fromkeys(missing.model for missing in self.missing):
            names = (f"{m.part} ({m.file})" if m.file else m.part for m in self.missing if m.model == model)
            lines.append(f"Of {model}, these files do not hold {', '.join(names)}.")
        return "\n".join(lines)


def inspect(source: Source) -> Inspection:
    """Look into checkpoint files, each by itself. What is wrong with a file or a part is among the findings.

    Parameters
    ----------
    source : str, path or iterable of paths
        As for `CoDi.load`, but files of several models and kinds may be mixed.

    Raises
    ------
    FileNotFoundError, ValueError
        Only if the source means no file at all.
    """
    files, held = [], {}
    for path in resolve(source):
        findings = FileFindings(str(path))
        files.append(findings)
        try:
            file = TensorFile(path)
            findings.megabytes = path.stat().st_size / 1e6
            config = _look(file, findings)
        except (OSError, ValueError) as error:
            findings.problem = str(error)
            continue
        _, _, parts = held.setdefault((findings.kind, config.to_json()), (config, findings.edition, set()))
        parts.update(part.name for part in findings.parts)
    missing = [
        MissingPart(config.name, part, system_by_edition(edition).FILES[part] if kind == PUBLISHED else None)
        for (kind, _), (config, edition, parts) in held.items()
        for part in part_names(config)
        if part not in parts
    ]
    return Inspection(files, missing)


def _look(file: TensorFile, findings: FileFindings) -> CoDiConfig:
    """Fill in the findings about a file; returns the configuration of the whole model that it belongs to."""
    shadows = {key: file[key].to("meta") for key in file.keys()}
    if "codi_config" in file.metadata:
        config = whole = CoDiConfig.from_json(file.metadata["codi_config"])
        findings.kind, findings.edition = OURS, "codi-any-to-any"
        findings.training = json.loads(file.metadata.get("codi_training", "[]"))
        states = _split(shadows, config, findings)
    elif holds_published(shadows):
        system = system_of([(file.path.name, shadows)])
        states = _split_published(shadows, findings, system)
        whole = system.CONFIG
        config = system.configure({p: {k: v.shape for k, v in s.items()} for p, s in states.items()})
        findings.kind, findings.edition = PUBLISHED, system.edition(config)
    else:
        raise ValueError(
            f"{file.path.name} holds no CoDi configuration and no keys of the published files: "
            "it is not a checkpoint of CoDi."
        )
    findings.model = whole.name
    for part, state in states.items():
        findings.parts.append(_judge(part, state, config, file.path.name, strict=findings.kind == OURS))
    return whole


def _split(shadows: State, config: CoDiConfig, findings: FileFindings) -> dict[str, State]:
    states: dict[str, State] = {}
    known = part_names(config)
    for key, value in shadows.items():
        part = next((part for part in known if key.startswith(f"{part}.")), None)
        if part is None:
            findings.unknown += 1
            findings.problem = f"{Path(findings.path).name} holds {key}, which belongs to no part of its model."
        else:
            states.setdefault(part, {})[key.removeprefix(f"{part}.")] = value
    return states


def _split_published(shadows: State, findings: FileFindings, system: ModuleType) -> dict[str, State]:
    states: dict[str, State] = {}
    for key, value in shadows.items():
        part = system.part_of(key)
        if part is None:
            findings.unknown += 1
        else:
            states.setdefault(part, {})[key] = value
    return {part: system.from_published(part, state, system.CONFIG) for part, state in states.items()}


def _judge(part: str, state: Mapping[str, Tensor], config: CoDiConfig, holder: str, strict: bool) -> PartFindings:
    """Findings about a part; `strict` where files hold nothing that is not needed."""
    ignored, problem = 0, None
    try:
        state, ignored = fit(part, state, config, holder)
    except ValueError as error:
        problem = str(error)
    if strict and ignored:
        problem = f"{holder} holds {ignored} tensors that {part} does not have: it belongs to another model."
    return PartFindings(
        name=part,
        found=len(state),
        ignored=ignored,
        parameters=sum(value.numel() for value in state.values()),
        dtypes=tuple(sorted({str(value.dtype).removeprefix("torch.") for value in state.values()})),
        megabytes=sum(value.nbytes for value in state.values()) / 1e6,
        problem=problem,
    )


def _file_lines(file: FileFindings) -> list[str]:
    facts = [f"{file.megabytes:.2f} MB"] if file.megabytes is not None else []
    if file.kind:
        facts += [file.kind, f"model {file.model}"]
        facts += [f"edition {file.edition}"] if file.edition != file.kind else []
    lines = [": ".join([file.path, ", ".join(facts)] if facts else [file.path])]
    if file.parts:
        lines.append(f"  {'part':<22}{'tensors':>8}{'ignored':>9}{'parameters':>15}{'MB':>11}  type")
    for part in file.parts:
        numbers = f"{part.found:>8}{part.ignored:>9}{part.parameters:>15,}{part.megabytes:>11.2f}"
        lines.append(f"  {part.name:<22}{numbers}  {', '.join(part.dtypes)}")
    if file.unknown:
        lines.append(f"  {file.unknown} tensors belong to no part")
    for record in file.training:
        steps = record.get("options", {}).get("steps", "?")
        lines.append(f"  trained: {record.get('stage', '?')}, {steps} steps, {record.get('minutes', '?')} minutes")
    problems = [file.problem, *(part.problem for part in file.parts)]
    return lines + [f"  PROBLEM: {problem}" for problem in problems if problem]
