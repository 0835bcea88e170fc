"""Finding a user's data: a folder of files that share names, a manifest (CSV or JSON), or webdataset shards (tar)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from .broken import Broken, printable
from .contents import Entry
from .endings import ARCHIVES, ENDINGS, MANIFESTS
from .folders import in_folder
from .manifests import in_manifest
from .passed_over import PassedOver
from .shards import in_shard, shards_of

_TRAIN = ("train", "training")
_GIVE = "give a folder, a manifest .csv, .tsv, .jsonl or .json, or .tar files"


def find_entries(
    data: str | os.PathLike,
    note: Callable[[str], None] | None = None,
    broken: Broken | None = None,
    split: str = "train",
) -> list[Entry]:
    """Entries of a user's data, in an order that does not depend on the machine; no content is decoded.

    Parameters
    ----------
    data : str or path
        A folder, searched with its subfolders, where files of one name belong together and captions are .txt or
        .caption files, and which may hold .tar files and Hugging Face's metadata.csv or metadata.jsonl; a manifest
        .csv, .tsv, .jsonl or .json whose columns or keys text, image, video and audio hold captions and paths, relative
        to the manifest; a .tar file, or a pattern such as ``shards-{000..127}.tar``, where files of one name up to the
        first dot belong together. See docs/training-data.md.
    note : callable, optional
        Called with sentences on files and columns that are not used.
    broken : Broken, optional
        Where entries are noted that cannot be used, if they are to be left out. By default the data are refused.

    split : str
        Of the rows of manifests with a column `split`, those with this value are found. "train" also finds rows and
        files without one.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence about what is wrong.
    """
    path, broken, passed_over = Path(data), broken or Broken(), PassedOver()
    ending = path.suffix.lower()[1:]
    if shards := shards_of(path):
        entries = [entry for shard in shards for entry in in_shard(shard, shard.name, passed_over, broken)]
    elif path.is_dir():
        entries = in_folder(path, passed_over, broken)
    elif ending in MANIFESTS and path.is_file():
        entries = in_manifest(path, "", passed_over, broken)
    elif ending in ARCHIVES and path.is_file():
        raise ValueError(f"{path} is packed: unpack it and give the folder, or pack it as .tar without compression.")
    elif path.exists():
        raise ValueError(f"{path} is not training data: {_GIVE}.")
    else:
        raise FileNotFoundError(f"There is no {path}: {_GIVE}.")
    broken.check(str(path))
    entries = _of_split(entries, split, passed_over)
    lines = [printable(line) for line in passed_over.lines()]
    if not entries:
        known = ", ".join(f".{ending}" for endings in ENDINGS.values() for ending in endings)
        remedy = (
            "it has no rows to train on"
            if path.is_file() and ending in MANIFESTS
            else f"give files that end in {known}"
        )
        raise ValueError(" ".join([f"{path} has no training data: {remedy}.", *lines, broken.reasons()]).strip())
    for line in lines if note else ():
        note(line)
    return entries


def _of_split(entries: Sequence[Entry], split: str, passed_over: PassedOver) -> list[Entry]:
    """The entries of a split; how many others there are is noted."""
    wanted = (*_TRAIN, None) if split in _TRAIN else (split,)
    others = Counter(entry.split for entry in entries if entry.split not in wanted)
    if others:
        counts = ", ".join(f"{name or 'none'} ({count})" for name, count in sorted(others.items(), key=str))
        passed_over.others.append(f"{sum(others.values())} row(s) have another split than {split}: {counts}.")
    return [entry for entry in entries if entry.split in wanted]
