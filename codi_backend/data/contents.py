"""The contents of a user's data: captions, files, and files inside tar files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


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
    """Contents that belong together, by modality; `split` is what a manifest says, in small letters."""

    name: str
    contents: dict[str, Content]
    split: str | None = None


@contextmanager
def as_file(content: Path | Member) -> Iterator[Path]:
    """The content as a file of its own; errors about it name its real place."""
    if isinstance(content, Path):
        yield content
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, Path(content.name).name)
        path.write_bytes(first_bytes(content, content.size))
        try:
            yield path
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(str(path), str(content))) from error


def first_bytes(content: Path | Member, count: int, start: int = 0) -> bytes:
    """At most `count` bytes of a file from `start` on."""
    path, begin = (content.archive, content.offset) if isinstance(content, Member) else (content, 0)
    if isinstance(content, Member):
        count = max(0, min(count, content.size - start))
    with open(path, "rb") as file:
        file.seek(begin + start)
        return file.read(count)
