"""Judged results on disk: one file a run, and while an evaluation lasts, one file a batch.

Every batch is a file of its own, so that several processes need no locks, and one that is killed loses its batch only.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BATCH = 20  # prompts
Records = list[dict[str, Any]]


def batches(total: int) -> list[tuple[int, int]]:
    """The first prompt and the size of every batch of a run of `total` prompts."""
    return [(first, min(BATCH, total - first)) for first in range(0, total, BATCH)]


def read_records(path: Path, heading: dict[str, Any]) -> Records:
    """The results of a run up to the first gap, if their heading is this one, else none."""
    records = _read(path, heading)
    first = len(records) // BATCH * BATCH
    while len(batch := _read(_batch_path(path, first), heading)) > len(records) - first:
        records[first:] = batch
        if len(batch) < BATCH:
            break
        first += BATCH
    return records


def missing_batches(path: Path, heading: dict[str, Any], total: int) -> list[tuple[int, int]]:
    """Those of the `batches` that are not on disk."""
    done = len(_read(path, heading))
    return [
        (first, size)
        for first, size in batches(total)
        if done < first + size and len(_read(_batch_path(path, first), heading)) < size
    ]


def write_batch(path: Path, heading: dict[str, Any], first: int, records: Sequence[dict[str, Any]]) -> None:
    """Add a batch, which begins with prompt `first`, to the run with the file `path`."""
    _write(_batch_path(path, first), heading, records)


def merge_batches(path: Path, heading: dict[str, Any]) -> None:
    """Put the batches up to the first gap into the run's file."""
    folder = path.with_suffix("")
    if not folder.is_dir():
        return
    records = read_records(path, heading)
    _write(path, heading, records)
    for file in folder.iterdir():
        if not file.stem.isdigit() or int(file.stem) < len(records):
            file.unlink()
    with contextlib.suppress(OSError):  # batches after a gap are left
        folder.rmdir()


def _batch_path(path: Path, first: int) -> Path:
    return path.with_suffix("") / f"{first:06d}.json"


def _read(path: Path, heading: dict[str, Any]) -> Records:
    if not path.exists():
        return []
    saved = json.loads(path.read_text())
    records = saved.pop("records")
    return records if saved == heading else []


def _write(path: Path, heading: dict[str, Any], records: Sequence[dict[str, Any]]) -> None:
    """One record per line; the file is replaced as a whole, so that an interruption leaves the previous one."""
    lines = ",\n".join(json.dumps(record) for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(f'{json.dumps(heading)[:-1]}, "records": [\n{lines}\n]}}\n')
    os.replace(part, path)
