"""The text on licences beside the dataset."""

from __future__ import annotations

from collections.abc import Sequence

from .packages import SPEECH_LICENCE, SPEECH_NOTE, needed


def attributions(kinds: Sequence[str]) -> str:
    """Markdown: whom the files are from, under which licences, and what was changed."""
    lines = [
        "# Attributions",
        "",
        "The column `source` of metadata.csv names the packages of each row, `licence` their licences.",
        "",
        "| package | version | licence | content |",
        "|---|---|---|---|",
    ]
    for package in needed(tuple(kinds)):
        lines.append(f"| {package.name} | {package.version} | {package.licence} | {package.credit} |")
    lines += [
        "",
        "Changes: drawings and animations were scaled, put on white, and animations cut to 16 frames; sounds were "
        "converted to 16 kHz mono, cut and set to one level. Notes were played from the soundfont by a program.",
    ]
    if "speech" in kinds:
        lines += ["", f"`{SPEECH_LICENCE}`: {SPEECH_NOTE}"]
    return "\n".join(lines) + "\n"
