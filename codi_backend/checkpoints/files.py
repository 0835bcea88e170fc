"""The files of a checkpoint: shipped models, folders, and models in several files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..presets import emoji, mini, vd_mini

Source = str | os.PathLike | Iterable[str | os.PathLike]

SHIPPED = {"mini": mini, "emoji": emoji, "vd-mini": vd_mini}
SUFFIXES = (".safetensors", ".sft", ".pth", ".pt", ".ckpt", ".bin")

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)")


def resolve(source: Source) -> list[Path]:
    """Resolve a source to its files; each once, in the order given.

    Parameters
    ----------
    source : str, path or iterable of paths
        "mini", "emoji" or "vd-mini" (the shipped models); a file; a folder, for the files in it that end in one of
        `SUFFIXES`; or several of these.

    Raises
    ------
    ValueError, FileNotFoundError
        If the source contains no file at all. The existence of named files is not checked.
    """
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not sources:
        raise ValueError("No checkpoint file was given.")
    files = [file for one in sources for file in _files(one)]
    return list({file.resolve(): file for file in reversed(files)}.values())[::-1]


def _files(source: str | os.PathLike) -> list[Path]:
    if source in SHIPPED:
        folder = SHIPPED[source].WEIGHTS
        files = _checkpoints(folder) if folder.is_dir() else []
        if not files:
            raise FileNotFoundError(f"The shipped model's weights are missing from {folder}: install the pack again.")
        return files
    path = Path(source)
    if not path.is_dir():
        return [path]
    if not (files := _checkpoints(path)):
        raise FileNotFoundError(
            f"The folder {path} has no checkpoint files: choose one with files that end in {', '.join(SUFFIXES)}."
        )
    return files


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files of a folder, without hidden files such as those of macOS."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def missing_shards(names: Iterable[str]) -> list[str]:
    """Names of the missing files of models in several files (``...-1-of-2.safetensors``)."""
    names = list(names)
    missing = []
    for name in names:
        path = Path(name)
        if match := _SHARD.fullmatch(path.stem):
            digits, count = len(match["number"]), int(match["count"])
            for number in range(1, min(count, 999) + 1):
                other = f"{match['stem']}-{number:0{digits}}-of-{match['count']}{path.suffix}"
                if other not in names:
                    missing.append(other)
    return list(dict.fromkeys(missing))
