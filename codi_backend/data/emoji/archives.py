"""Files inside npm's archives."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files with names that are wanted, in the order of the archive, read in one pass."""
    with tarfile.open(path, "r|gz") as tar:
        for member in tar:
            if member.isfile() and wanted(member.name):
                yield member.name, tar.extractfile(member).read()


def read_json(path: Path, *names: str) -> list[Any]:
    """Several JSON files of an archive, in the order of `names`."""
    found = {name: json.loads(content) for name, content in members(path, set(names).__contains__)}
    return [found[name] for name in names]
