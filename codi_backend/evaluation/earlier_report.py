"""Going on from the report of an earlier evaluation, whose judged results need not be at hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .figures import Figure, together
from .tables import Table

_MAY_DIFFER = ("samples", "clips")


def read_report(path: Path, heading: Mapping[str, Any]) -> dict[str, Any]:
    """An ``evaluation.json``, whose model and settings must be those of the heading.

    Raises
    ------
    ValueError
        If it is none, or one of another model or other settings.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        tables, prompts = report["tables"], report["prompts"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is no report that can be extended: give an evaluation.json of codi evaluate."
        ) from None
    for name, value in heading.items():
        if name not in _MAY_DIFFER and report.get(name) != value:
            raise ValueError(
                f"{path} cannot be extended: its {name} is {report.get(name)}, but {value} here; choose the same."
            )
    return {"tables": tables, "prompts": prompts}


def extended(report: Mapping[str, Any], tables: Sequence[Table]) -> list[Table]:
    """The tables with figures that are of the report's results, too."""
    return [dataclasses.replace(t, figures=_merged(report["tables"].get(t.key, ()), t.figures)) for t in tables]


def _merged(earlier: Sequence[Mapping[str, Any]], later: Sequence[Figure]) -> tuple[Figure, ...]:
    figures = {}
    for facts in earlier:
        figure = Figure(**{name: value for name, value in facts.items() if name != "met"})
        figures[figure.row, figure.column] = figure
    for figure in later:
        before = figures.get((figure.row, figure.column))
        figures[figure.row, figure.column] = together(before, figure) if before else figure
    return tuple(figures.values())
