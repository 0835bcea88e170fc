"""The report of a self-check: what files hold, what is wrong with them, and how a short run went."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .. import __version__
from ..checkpoints.download import known_sizes
from ..checkpoints.files import Source, resolve
from ..checkpoints.findings import Inspection, PartFindings
from ..checkpoints.inspect import inspect
from .smoke import Step, smoke_run


@dataclass
class SelfCheck:
    """Findings of a self-check; `str` gives the report in Markdown, without paths of this machine.

    Attributes
    ----------
    inspection : Inspection
    checksums : dict of str to str
        SHA-256 of each file that could be read, by its path.
    sizes : dict of str to str
        How the size of each file compares with the published ones, by its path.
    device : str
    steps : list of Step
        The smoke run; empty if the files cannot be loaded.
    """

    inspection: Inspection
    checksums: dict[str, str]
    sizes: dict[str, str]
    device: str
    steps: list[Step] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What is wrong, one sentence each."""
        found = [
            problem
            for file in self.inspection.files
            for problem in (file.problem, *(part.problem for part in file.parts))
            if problem
        ]
        return found + [f"{step.name}: {step.problem.rstrip('.')}." for step in self.steps if step.problem]

    def __str__(self) -> str:
        system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        problems = self.problems
        result = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
        lines = [
            "# codi selfcheck",
            "",
            f"Result: **{result if problems else 'nothing is wrong'}**",
            "",
            f"codi {__version__}, torch {torch.__version__}, {system}, device {self.device}",
        ]
        if problems:
            lines += ["", "## Problems", "", *(f"- {problem}" for problem in problems)]
        lines += ["", "## Files", "", "| file | bytes | SHA-256 | kind | published size |", "|---|---|---|---|---|"]
        for file in self.inspection.files:
            path = Path(file.path)
            size = path.stat().st_size if path.is_file() else "none"
            kind = ", ".join(filter(None, (file.kind, file.model, file.edition if file.kind == "published" else None)))
            cells = (path.name, size, self.checksums.get(file.path, "none"), kind or "unknown", self.sizes[file.path])
            lines.append(f"| {' | '.join(map(str, cells))} |")
        if any(file.parts for file in self.inspection.files):
            lines += [
                "",
                "## Parts",
                "",
                "| part | file | tensors | ignored | parameters | not finite | types |",
                "|---|---|---|---|---|---|---|",
            ]
            for file in self.inspection.files:
                lines += [_part_row(part, Path(file.path).name) for part in file.parts]
        if self.inspection.missing:
            names = ", ".join(f"{m.part} ({m.file})" if m.file else m.part for m in self.inspection.missing)
            lines += ["", f"Not in these files: {names}."]
        if self.steps:
            lines += ["", "## Smoke run", "", "| step | result | s | peak GB |", "|---|---|---|---|"]
            for step in self.steps:
                memory = "unknown" if step.peak is None else f"{step.peak / 1e9:.2f}"
                lines.append(f"| {step.name} | {_cell(step.result)} | {step.seconds:.1f} | {memory} |")
        return "\n".join(lines)


def _part_row(part: PartFindings, file: str) -> str:
    total = max(sum(part.by_dtype.values()), 1)
    shares = ", ".join(f"{dtype} {100 * count / total:.1f}%" for dtype, count in sorted(part.by_dtype.items()))
    broken = sum(part.not_finite.values())
    return f"| {part.name} | {file} | {part.found} | {part.ignored} | {part.parameters} | {broken} | {shares} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def selfcheck(source: Source, device: str = "cpu", report: Callable[[str], None] = lambda line: None) -> SelfCheck:
    """Check model files: checksums, names, shapes, values and, if these are right, a short run.

    Parameters
    ----------
    source : str, path or iterable of paths
        As for `CoDi.load`.
    device : str
        Where the short run takes place.
    report : callable
        Called with a line about each step as it begins or ends.

    Raises
    ------
    FileNotFoundError, ValueError
        Only if the source contains no file at all, or the device cannot be used. Other problems are findings.
    """
    paths = resolve(source)
    checksums, sizes = {}, {}
    for path in paths:
        report(f"reading {path.name}")
        sizes[str(path)] = _published_size(path)
        if path.is_file():
            checksums[str(path)] = _sha256(path)
    check = SelfCheck(inspect(paths), checksums, sizes, device)
    if check.inspection.sound:
        for step in smoke_run(paths, device):
            report(f"{step.name}: {step.problem or step.result}")
            check.steps.append(step)
    return check


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _published_size(path: Path) -> str:
    known = known_sizes(path.name)
    if not known or not path.is_file():
        return "not known"
    size = path.stat().st_size
    return next((f"that of the {edition} edition" for edition, sizes in known.items() if size in sizes), "another one")
