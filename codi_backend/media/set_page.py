"""The page about the results of many prompts."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .earlier_results import PAGE
from .html_report import page, prompts_title, result_card


def render_set(
    out: Path, prompts: Mapping[int, Sequence[tuple[str, str, float]]], rows: Sequence[Mapping[str, Any]]
) -> str:
    """The page as HTML, which lies in the folder `out` and shows its results, or the failure, line by line.

    Parameters
    ----------
    out : Path
    prompts : mapping
        By line: (modality, text or path, weight) of each prompt. A line that cannot be understood has none.
    rows : sequence of mapping
        The rows of the manifest, in the order of lines.
    """
    sections = []
    for line, group in itertools.groupby(rows, lambda row: row["line"]):
        title = f"Line {line}"
        if line in prompts:
            title += f": {html.escape(prompts_title([(name, content) for name, content, _ in prompts[line]]))}"
        results = list(group)
        if "failure" in results[0]:
            shown = f"<p>{html.escape(results[0]['failure'])}</p>"
        else:
            first = next(iter(results[0]["files"].values()))
            title = f'<a href="{Path(first).parent.as_posix()}/{PAGE}">{title}</a>'
            shown = "".join(result_card(row["files"], _text(out, row["files"])) for row in results)
        sections.append(f"<h2>{title}</h2>\n<main>{shown}</main>")
    return page(f"{len(sections)} prompts", "\n".join(sections))


def _text(out: Path, files: Mapping[str, str]) -> str:
    return (out / files["text"]).read_text(encoding="utf-8") if "text" in files else ""
