"""Findings of `codi inspect`, and their text and JSON forms."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PartFindings:
    """Findings about one part in one file.

    Attributes
    ----------
    found, ignored : int
        Number of tensors that the part needs, and of those under its name that it does not need.
    parameters, megabytes : int, float
        Of the tensors found.
    dtypes : tuple of str
        As stored.
    by_dtype : dict of str to int
        Parameters of each type.
    not_finite : dict of str to int
        Number of NaN and infinite values, by tensor.
    problem : str or None
        Why the part cannot be loaded. A problem of a part in several files is reported with the first of them.
    """

    name: str
    found: int
    ignored: int
    parameters: int
    dtypes: tuple[str, ...]
    by_dtype: dict[str, int]
    megabytes: float
    not_finite: dict[str, int]
    problem: str | None


@dataclass
class FileFindings:
    """Findings about one file.

    Attributes
    ----------
    kind : str or None
        "this pack's" or "published"; None if the file could not be read.
    edition, model : str or None
        As in `Checkpoint`, and the name of its configuration.
    megabytes : float or None
        Size of the file; None if it does not exist.
    unknown : int
        Tensors that belong to no part.
    training : list of dict
        Records of its training stages.
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
    """A part of a model that none of the files holds, and for published models the file that holds it."""

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
        """Whether neither the files nor their parts have a problem."""
        return not any(file.problem or any(part.problem for part in file.parts) for file in self.files)

    def to_json(self) -> str:
        """Write the findings as JSON."""
        return json.dumps({"sound": self.sound, **dataclasses.asdict(self)}, indent=2)

    def __str__(self) -> str:
        lines = [line for file in self.files for line in _file_lines(file)]
        for model in dict.fromkeys(missing.model for missing in self.missing):
            names = (f"{m.part} ({m.file})" if m.file else m.part for m in self.missing if m.model == model)
            lines.append(f"Parts of {model} that these files do not hold: {', '.join(names)}.")
        return "\n".join(lines)


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
