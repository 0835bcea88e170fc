"""Webdataset shards: tar files in which files of one name, up to the first dot, belong together."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .broken import Broken
from .contents import Entry, Member
from .grouping import as_entries, group, is_trash
from .passed_over import PassedOver

_MOST_LINKS = 16  # one after the other


def shards_of(path: Path) -> list[Path]:
    """The tar files that a name stands for: itself, or a pattern such as ``own-{000..127}.tar``; none for others."""
    if braces := re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*\.tar)", str(path), re.I | re.S):
        before, first, last, after = braces.groups()
        return [Path(f"{before}{i:0{len(first)}}{after}") for i in range(int(first), int(last) + 1)]
    return [path] if path.suffix.lower() == ".tar" and path.is_file() else []


def in_shard(shard: Path, name: str, passed_over: PassedOver, broken: Broken) -> Sequence[Entry]:
    """The entries of a tar file, whose names begin with `name`.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is damaged or compressed.
    """
    try:
        with tarfile.open(shard, "r:") as archive:
            members = list(archive)
            if not _ends_properly(shard, archive.offset):
                passed_over.others.append(f"{shard} has no end mark, so that it may have been cut off: check it.")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no shard {shard}: correct the pattern, or add the file.") from error
    except (tarfile.TarError, OSError, UnicodeError) as error:
        raise ValueError(f"{shard} cannot be read as an uncompressed tar file ({error}): make it again.") from error
    return as_entries(group(_files(shard, name, members, broken), passed_over, broken))


def _files(shard: Path, name: str, members: list[tarfile.TarInfo], broken: Broken) -> Iterator[tuple[str, str, Member]]:
    named = {posixpath.normpath(member.name): member for member in members}
    for member in members:
        path = posixpath.normpath(member.name)
        if member.isdir() or any(map(is_trash, path.split("/"))):
            continue
        folder, file = posixpath.split(path)
        stem, _, ending = file.partition(".")
        stem = "/".join(filter(None, (name, folder, stem)))
        if (data := _target(member, named)) is None:
            broken.add(
                stem,
                f"{shard}/{path} is no ordinary file, or a link to a file outside that tar file: pack it with tar's "
                "option --dereference and without --sparse.",
            )
            continue
        yield stem, ending, Member(shard, path, data.offset_data, data.size)


def _target(member: tarfile.TarInfo, named: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The member that holds the bytes of this one, which may be a link."""
    found: tarfile.TarInfo | None = member
    for _ in range(_MOST_LINKS):
        if found is None or not (found.issym() or found.islnk()):
            break
        folder = posixpath.dirname(found.name) if found.issym() else ""
        found = named.get(posixpath.normpath(posixpath.join(folder, found.linkname)))
    return found if found is not None and found.isreg() and not found.issparse() else None


def _ends_properly(shard: Path, end: int) -> bool:
    """Whether zeros follow the last member, as they should.

    `ReadError` for anything else: the reader of tar files would stop there without an error.
    """
    marked = False
    with open(shard, "rb") as file:
        file.seek(end)
        while block := file.read(1 << 20):
            if block.strip(b"\0"):
                raise tarfile.ReadError(f"it goes on after its end at byte {end}, by damage or as several joined ones")
            marked = True
    return marked
