"""The rows of a manifest, as they are written: CSV with any usual separator, JSONL, or a JSON array."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .broken import Broken
from .endings import modality_of
from .text_bytes import decode_text, read_bytes

_MOST_BYTES = 2_000_000_000
_SEPARATORS = (",", ";", "\t", "|")


class Row(NamedTuple):
    """One row: its name ("line 3"), and its values by column or key, as these are written."""

    name: str
    values: dict[str, Any]


def read_rows(path: Path, known: Sequence[str], broken: Broken) -> list[Row]:
    """The rows of a manifest, whose columns are not interpreted.

    Parameters
    ----------
    path : Path
        .csv, .tsv, .jsonl, .ndjson or .json.
    known : sequence of str
        Normalised names of columns (see `normalised`), by which the separator of a CSV file is recognised.
    broken : Broken
        Where rows are noted that have too many or too few fields, or are no JSON object.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file, and the line where there is one.
    """
    text = decode_text(read_bytes(path, _MOST_BYTES), path)
    ending = path.suffix.lower()
    if ending == ".json":
        return list(_json_array(path, text, broken))
    if ending in (".jsonl", ".ndjson"):
        return list(_json_lines(path, text, broken))
    return list(_csv(path, text, known, broken))


def normalised(column: str) -> str:
    """The name of a column without case and the space around it."""
    return column.strip().casefold()


def _csv(path: Path, text: str, known: Sequence[str], broken: Broken) -> Iterator[Row]:
    separators = ("\t", *_SEPARATORS) if path.suffix.lower() == ".tsv" else _SEPARATORS
    skipped = 0
    if first_line := re.match(r"sep=(.)(\r\n|\r|\n)", text, re.I):  # written by Excel
        separators, text, skipped = (first_line[1],), text[first_line.end() :], 1
    separator = max(separators, key=lambda s: _known_columns(text, s, known))  # the first of equals
    (_, header), *records = _records(path, text, separator, skipped) or [(0, [])]
    seen: dict[str, str] = {}
    for column in header:
        if column.strip() and normalised(column) in seen:
            raise ValueError(f"{path} has two columns {column.strip()!r}: remove or rename one.")
        seen[normalised(column)] = column
    for line, fields in records:
        if any(field.strip() for field in fields[len(header) :]) or len(fields) < len(header):
            broken.add(
                f"line {line}",
                f"Line {line} of {path} has {len(fields)} field(s), but the first line has {len(header)}: put double "
                f"quotes around texts with {_NAMES.get(separator, separator)} or quotes, and write fields that are "
                "empty, too.",
            )
        elif _swallowed(fields, separator, len(header)):
            broken.add(
                f"line {line}",
                f"A quoted field that begins in line {line} of {path} holds further lines that look like rows: "
                "close its quotes.",
            )
        else:
            yield Row(f"line {line}", dict(zip(header, fields)))


_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _known_columns(text: str, separator: str, known: Sequence[str]) -> int:
    """How many columns have known names if this is the separator; less than none if the first line is faulty."""
    try:
        records = _records(Path(), text, separator, most=1)
    except ValueError:
        return -1
    return sum(normalised(column) in known for _, header in records for column in header)


def _records(
    path: Path, text: str, separator: str, skipped: int = 0, most: int | None = None
) -> list[tuple[int, list[str]]]:
    """At most `most` rows that are not blank, with the number of the line in which each begins."""
    records: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    before = csv.field_size_limit(min(len(text) + 1, 2**31 - 1))
    try:
        line = 1
        for fields in reader:
            if any(field.strip() for field in fields):
                records.append((line + skipped, fields))
            if len(records) == most:
                break
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"Line {line + skipped} of {path} has quotes that do not fit ({error}): put double quotes around the "
            'whole field, close them, and write "" for each quote inside.'
        ) from error
    finally:
        csv.field_size_limit(before)  # which belongs to all readers of this process
    return records


def _swallowed(fields: Sequence[str], separator: str, count: int) -> bool:
    """Whether a field spans lines one of which is like a row of its own, with a file of a known ending."""
    if count < 2:
        return False
    lines = [line for field in fields for line in re.split(r"\r\n|\r|\n", field)[1:]]
    parts = [part for line in lines if line.count(separator) >= count - 1 for part in line.split(separator)]
    return any(modality_of(part.strip(' "').rpartition(".")[2]) for part in parts if "." in part)


def _json_lines(path: Path, text: str, broken: Broken) -> Iterator[Row]:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        name = f"line {number}"
        try:
            value = _parsed(line)
        except (ValueError, RecursionError) as error:
            broken.add(name, f"Line {number} of {path} is not JSON ({error}): write one object a line.")
            continue
        if isinstance(value, dict):
            yield Row(name, value)
        else:
            broken.add(
                name, f"Line {number} of {path} is not a JSON object: write one a line (an array goes into a .json)."
            )


def _json_array(path: Path, text: str, broken: Broken) -> Iterator[Row]:
    try:
        values = _parsed(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): correct it; objects by line belong into a .jsonl.") from error
    if not isinstance(values, list):
        raise ValueError(f"{path} is not an array of objects: write [{{...}}, {{...}}], or one object a line (.jsonl).")
    for number, value in enumerate(values, 1):
        if isinstance(value, dict):
            yield Row(f"object {number}", value)
        else:
            broken.add(f"object {number}", f"Item {number} of the array in {path} is not an object: write {{...}}.")


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, which may not have a key twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"it has the key {twice!r} twice")
    return made
