"""Rows of the manifest of a dataset of `codi dataset emoji`, and the files that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ...data.broken import Broken
from ...data.emoji.captions import NUMBERS
from ...data.manifest_rows import read_rows
from ...media.read import read_audio, read_image


def rows_of(dataset: Path, kinds: Sequence[str], split: str) -> list[dict[str, str]]:
    """The rows of these kinds and this split, by column.

    `ValueError` or `FileNotFoundError` with a sentence if there are none, or the manifest cannot be read.
    """
    rows = [row.values for row in read_rows(dataset / "metadata.csv", ("text", "image", "audio"), Broken())]
    found = [row for row in rows if row.get("kind") in kinds and row.get("split") == split]
    if not found:
        raise ValueError(
            f"{dataset} has no rows of the kind {' or '.join(kinds)} for {split}: make them with codi dataset emoji."
        )
    return found


def number_of_notes(row: Mapping[str, str]) -> str | None:
    """How many notes the caption of a row states, such as "two"."""
    return next((word for word in row["text"].split() if word in NUMBERS), None)


def read_file(dataset: Path, row: dict[str, str], column: str) -> Tensor:
    """The image ``[3, H, W]`` or audio ``[1, N]`` at 16 kHz of a row."""
    path = dataset / row[column]
    return read_image(path) if column == "image" else read_audio(path)[0]
