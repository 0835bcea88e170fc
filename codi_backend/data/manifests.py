"""Manifests: tables whose columns hold captions and paths."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

from .broken import Broken, first_names
from .contents import Content, Entry
from .endings import ENDINGS
from .grouping import modality_of_file
from .manifest_rows import Row, normalised, read_rows
from .passed_over import PassedOver

# Hugging Face's folders have `file_name`, whose ending decides the modality, or `image_file_name` and the like.
COLUMNS = {name: name for name in ENDINGS} | {f"{name}_file_name": name for name in ENDINGS}
COLUMNS |= {"caption": "text", "file_name": "file"}
_SPLIT = "split"


class UnknownColumns(ValueError):
    """A table in which no column has a known name."""


def in_manifest(path: Path, name: str, passed_over: PassedOver, broken: Broken) -> list[Entry]:
    """The entries of a manifest, one a row, whose names are `name` and the number of the line.

    Paths are relative to the manifest. Whether their files exist is not checked. Columns of unknown names are noted
    in `passed_over`, rows that cannot be understood in `broken`.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file, if it cannot be read; `UnknownColumns` if no column has a known name.
    """
    rows = read_rows(path, tuple(COLUMNS), broken)
    columns = dict.fromkeys(column for row in rows for column in row.values if column.strip())
    if rows and not any(normalised(column) in COLUMNS for column in columns):
        raise UnknownColumns(
            f"{path} has none of the columns {', '.join(ENDINGS)}, caption, file_name: name them so in its first line "
            "or keys."
        )
    if unknown := [column for column in columns if normalised(column) not in (*COLUMNS, _SPLIT)]:
        passed_over.others.append(f"{path} has columns that are not used: {first_names(unknown)}.")
    entries = []
    for row in rows:
        try:
            entries.append(Entry(f"{name}{row.name}", _contents(path, row), _split(row)))
        except ValueError as error:
            broken.add(f"{name}{row.name}", str(error))
    return entries


def _contents(path: Path, row: Row) -> dict[str, Content]:
    where = f"{row.name.capitalize()} of {path}"
    contents: dict[str, Content] = {}
    for column, value in row.values.items():
        if (kind := COLUMNS.get(normalised(column))) is None or value in (None, ""):
            continue
        if not isinstance(value, str):
            raise ValueError(f"{where} has {value!r:.80} as {column.strip()}: give a text.")
        if not (value := value.strip()):
            continue
        if not _is_unicode(value):
            raise ValueError(
                f"{where} has {column.strip()} with a NUL or characters that are not Unicode: write it again."
            )
        content: Content = value
        if kind != "text" or _names_a_file(value):
            content = file = path_beside(path.parent, value, where)
            kind = modality_of_file(file) if kind == "file" else kind
        if kind is None:
            raise ValueError(
                f"{where} names {value}, whose ending has no modality: use one of the columns {', '.join(ENDINGS)} "
                f"instead of {column.strip()}."
            )
        if kind in contents:
            raise ValueError(f"{where} has two values for {kind}: leave one of its columns empty.")
        contents[kind] = content
    return contents


def _split(row: Row) -> str | None:
    values = [str(value).strip().casefold() for column, value in row.values.items() if normalised(column) == _SPLIT]
    return next((value for value in values if value not in ("", "none")), None)


def _is_unicode(value: str) -> bool:
    return "\0" not in value and value.encode("utf-8", "replace").decode() == value


def _names_a_file(text: str) -> bool:
    """Whether a caption is the name of the file that holds it."""
    return re.fullmatch(r"\S+\.(txt|caption)", text, re.I) is not None


def path_beside(folder: Path, value: str, where: str) -> Path:
    """The path that a row names, relative to the manifest's folder; `ValueError` about `where` for an address."""
    if re.match(r"[a-z][a-z0-9+.-]+://|data:", value, re.I):
        raise ValueError(f"{where} has the address {value:.80}: nothing is downloaded. Give the path of a file.")
    path = folder / value
    return folder / PureWindowsPath(value).as_posix() if "\\" in value and not exists(path) else path


def exists(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
