"""Tables as JSON, Markdown and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..media.output_folder import replacing
from .figures import Figure
from .tables import Table

_UNITS = {"share": "%", "seconds": "s"}


def write_report(
    out: Path,
    heading: Mapping[str, Any],
    prompts: Mapping[str, int],
    tables: Sequence[Table],
    missing: Mapping[str, str],
) -> str:
    """Write ``evaluation.json``, ``evaluation.md`` and a plot for each table that has figures.

    Parameters
    ----------
    heading : mapping
        Model and settings, the head of the report.
    prompts : mapping
        Number of prompts behind the figures, by run.
    missing : mapping
        The reason why a run is not in the tables, by run.

    Returns
    -------
    str
        The Markdown.
    """
    whole = {
        **heading,
        "prompts": dict(prompts),
        "tables": {t.key: [f.to_dict() for f in t.figures] for t in tables},
        "missing": dict(missing),
    }
    text = _markdown(heading, tables, missing)
    with replacing(out) as folder:
        (folder / "evaluation.json").write_text(
            json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for table in tables:
            if table.figures:
                (_curves if table.axis else _plot)(table, folder / f"evaluation_{table.key}.png")
        (folder / "evaluation.md").write_text(text, encoding="utf-8")
    return text


def _markdown(heading: Mapping[str, Any], tables: Sequence[Table], missing: Mapping[str, str]) -> str:
    lines = [
        "# Evaluation",
        "",
        ", ".join(f"{name} {value}" for name, value in heading.items()) + ".",
        "",
        "The 95% interval is in brackets. Then follow whether the target is met (✓) or not (✗), and the target: ≥ at "
        "least, ≤ at most, ~ chance, which is met if the interval contains it. The number of results is small.",
    ]
    for number, table in enumerate(tables, start=1):
        lines += ["", f"## {number}. {table.title}", "", table.note, ""]
        lines += _rows(table) if table.figures else ["Not measured."]
    if missing:
        lines += ["", "## Not measured", "", *(f"- {name}: {reason}" for name, reason in missing.items())]
    return "\n".join(lines) + "\n"


def _rows(table: Table) -> list[str]:
    rows, columns = _axes(table)
    corner = table.axis or ""
    cells = {(f.row, f.column): f for f in table.figures}
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for row in rows:
        texts = [_cell(cells[row, column]) if (row, column) in cells else "" for column in columns]
        lines.append(f"| {row} | " + " | ".join(texts) + " |")
    return lines


def _axes(table: Table) -> tuple[list[str], list[str]]:
    """The rows and columns that have figures."""
    filled = {f.column for f in table.figures}
    return list(dict.fromkeys(f.row for f in table.figures)), [c for c in table.columns if c in filled]


def _cell(figure: Figure) -> str:
    scale, digits = (100, 1) if figure.unit == "share" else (1, 3)

    def formatted(value: float, fewer: int = 0) -> str:
        return f"{scale * value:.{digits - fewer}f}"

    text = f"{formatted(figure.value)} {_UNITS[figure.unit]}"
    if figure.low < figure.high:
        text += f" ({formatted(figure.low, 1)}–{formatted(figure.high, 1)})"
    if figure.target is not None:
        sign = {"at least": "≥", "at most": "≤", "chance": "~"}[figure.goal]
        text += f" {'✓' if figure.met else '✗'} {sign} {formatted(figure.target)}"
    return f"{text} <sub>{figure.n}</sub>"


def _plot(table: Table, path: Path) -> None:
    """One panel for each column: figures with intervals, and targets as ticks."""
    from matplotlib.figure import Figure as Canvas

    rows, columns = _axes(table)
    canvas = Canvas(figsize=(3.2 + 2.2 * len(columns), 1.2 + 0.28 * len(rows)), layout="constrained")
    panels = canvas.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    colours = {True: "#2a7f4f", False: "#c0392b", None: "#555555"}
    for panel, column in zip(panels, columns):
        figures = [f for f in table.figures if f.column == column]
        for f in figures:
            y = rows.index(f.row)
            panel.barh(y, f.value, color=colours[f.met], alpha=0.35, height=0.7)
            panel.plot([f.low, f.high], [y, y], color=colours[f.met], linewidth=2)
            if f.target is not None:
                panel.plot([f.target, f.target], [y - 0.4, y + 0.4], color="black", linewidth=1)
        share = figures[0].unit == "share"
        panel.set_title(column if share else f"{column} (s)", fontsize=9)
        panel.set_xlim(0, 1 if share else None)
        panel.grid(axis="x", alpha=0.3)
        panel.tick_params(labelsize=8)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].invert_yaxis()
    canvas.suptitle(f"{table.title} (bar: figure, line: 95% interval, tick: target)", fontsize=10)
    canvas.savefig(path, dpi=110)


def _curves(table: Table, path: Path) -> None:
    """All columns as curves over the numbers of the rows, with intervals, and targets as dashes."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7, 4), layout="constrained")
    panel = canvas.subplots()
    for column in _axes(table)[1]:
        figures = [f for f in table.figures if f.column == column]
        xs = [float(f.row) for f in figures]
        (line,) = panel.plot(xs, [f.value for f in figures], marker="o", label=column)
        panel.fill_between(xs, [f.low for f in figures], [f.high for f in figures], color=line.get_color(), alpha=0.15)
        aims = [(x, f.target) for x, f in zip(xs, figures) if f.target is not None]
        panel.scatter(*zip(*aims) if aims else ((), ()), marker="_", s=400, color=line.get_color())
    panel.set(xlabel=table.axis, ylim=(0, 1.02))
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    canvas.suptitle(f"{table.title} (bands: 95% intervals, dashes: targets)", fontsize=10)
    canvas.savefig(path, dpi=110)
