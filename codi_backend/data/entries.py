"""Finding a user's data: a folder of files that share names, a manifest (CSV or JSONL), or webdataset shards (tar)."""

from __future__ import annotations

import csv
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ENDINGS = {
    "text": ("txt",),
    "image": ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"),
    "video": ("mp4", "webm", "mkv", "mov", "avi", "m4v", "gif"),
    "audio": ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aac"),
}
_MODALITY = {ending: name for name, endings in ENDINGS.items() for ending in endings}
_MANIFESTS = (".csv", ".jsonl")


@dataclass(frozen=True)
class Member:
    """A file inside a tar file."""

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


Content = str | Path | Member
"""A caption, a file, or a file inside a tar file."""


@dataclass(frozen=True)
class Entry:
    """Contents that belong together, by modality."""

    name: str
    contents: dict[str, Content]


def find_entries(data: str | os.PathLike) -> list[Entry]:
    """Entries of a user's data, in an order that does not depend on the machine; no content is read.

    Parameters
    ----------
    data : str or path
        A folder, searched with its subfolders, where files of one name belong together and captions are .txt files;
        a manifest .csv or .jsonl whose columns or keys text, image, video and audio hold captions and paths, relative
        to the manifest; a .tar file, a folder of them, or a pattern such as ``shards-{000..127}.tar``, where files of
        one name up to the first dot belong together.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence about what is wrong.
    """
    path = Path(data)
    if shards := _shards(path):
        entries = [entry for shard in shards for entry in _in_shard(shard)]
    elif path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and not f.name.startswith("."))
        entries = _grouped((str(f.relative_to(path).with_suffix("")), f.suffix[1:], f) for f in files)
    elif path.suffix.lower() in _MANIFESTS and path.is_file():
        entries = list(_in_manifest(path))
    elif path.exists():
        raise ValueError(f"{path} is no data for training: give a folder, a manifest .csv or .jsonl, or .tar files.")
    else:
        raise FileNotFoundError(f"There is no {path}: give a folder, a manifest .csv or .jsonl, or .tar files.")
    if not entries:
        known = ", ".join(f".{ending}" for ending in _MODALITY)
        raise ValueError(f"{path} holds nothing to learn from: give files that end in {known}.")
    return entries


@contextmanager
def as_file(content: Path | Member) -> Iterator[Path]:
    """The content as a file of its own; errors about it name where it really is."""
    if isinstance(content, Path):
        yield content
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, Path(content.name).name)
        with open(content.archive, "rb") as archive:
            archive.seek(content.offset)
            path.write_bytes(archive.read(content.size))
        try:
            yield path
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(str(path), str(content))) from error


def _shards(path: Path) -> list[Path]:
    if braces := re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*\.tar)", str(path)):
        before, first, last, after = braces.groups()
        return [Path(f"{before}{i:0{len(first)}}{after}") for i in range(int(first), int(last) + 1)]
    if path.suffix == ".tar" and path.is_file():
        return [path]
    return sorted(path.glob("*.tar")) if path.is_dir() else []


def _in_shard(shard: Path) -> list[Entry]:
    try:
        with tarfile.open(shard, "r:") as archive:
            members = [Member(shard, m.name, m.offset_data, m.size) for m in archive if m.isfile()]
    except tarfile.TarError as error:
        raise ValueError(f"{shard} cannot be read as an uncompressed tar file ({error}): make it again.") from error

    def parts(member: Member) -> tuple[str, str, Member]:
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        return f"{shard.name}/{folder}/{stem}" if folder else f"{shard.name}/{stem}", ending, member

    return _grouped(map(parts, members))


def _in_manifest(path: Path) -> Iterator[Entry]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file)) if path.suffix.lower() == ".csv" else list(_json_lines(path, file))
    if rows and not any(key in row for row in rows for key in ENDINGS):
        raise ValueError(
            f"{path} has none of the columns {', '.join(ENDINGS)}: name them so in its first line or keys."
        )
    for number, row in enumerate(rows, 1):
        contents: dict[str, Content] = {}
        for name in ENDINGS:
            value = row.get(name) or ""
            if not isinstance(value, str):
                raise ValueError(f"{path} has {value!r} as {name} of entry {number}: give a text.")
            if value.strip():
                contents[name] = value.strip() if name == "text" else path.parent / value.strip()
        yield Entry(f"entry {number}", contents)


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[dict[str, object]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"Line {number} of {path} is not JSON ({error}): write one object a line.") from error
        if not isinstance(row, dict):
            raise ValueError(f"Line {number} of {path} is not a JSON object: write one a line.")
        yield row


def _grouped(files: Iterable[tuple[str, str, Path | Member]]) -> list[Entry]:
    """Entries of files with their names and endings; files of other kinds are passed over."""
    groups: dict[str, dict[str, Content]] = {}
    for name, ending, content in files:
        if (kind := _MODALITY.get(ending.lower())) is None:
            continue
        group = groups.setdefault(name, {})
        if kind in group:
            raise ValueError(f"{group[kind]} and {content} have one name and are both {kind}: rename or remove one.")
        group[kind] = content
    return [Entry(name, contents) for name, contents in groups.items()]
