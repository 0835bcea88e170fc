"""Folders of a user's data: files that share names, tar files among them, and Hugging Face's metadata files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from .broken import Broken
from .contents import Content, Entry
from .endings import modality_of
from .grouping import as_entries, group, is_trash
from .manifests import UnknownColumns, in_manifest
from .passed_over import PassedOver
from .shards import in_shard

_METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")


def in_folder(folder: Path, passed_over: PassedOver, broken: Broken) -> list[Entry]:
    """The entries of a folder and its subfolders: rows of metadata files, files that share names, tar files.

    Linked folders are followed, each folder is read once, hidden ones and trash are not. Files that a metadata file
    names belong to its rows, and so do other files of the same names. What cannot be used is noted in `passed_over` and
    `broken`.
    """
    files = _walk(folder, passed_over, broken)
    metadata = [file for file in files if file.name.lower() in _METADATA]
    if twice := [place for place, count in Counter(file.parent for file in metadata).items() if count > 1]:
        raise ValueError(f"{twice[0]} holds several of {', '.join(_METADATA)}: keep one.")
    shards = [file for file in files if file.suffix.lower() == ".tar"]
    others = sorted(set(files) - {*metadata, *shards}, key=lambda file: file.parts)
    named = ((str(file.relative_to(folder).with_suffix("")), file.suffix[1:], file) for file in others)
    groups = group(named, passed_over, broken)
    entries = _described(folder, metadata, groups, passed_over, broken)
    entries += as_entries(groups)
    for shard in shards:
        entries += in_shard(shard, str(shard.relative_to(folder)), passed_over, broken)
    return entries


def _described(
    folder: Path, metadata: Iterable[Path], groups: dict[str, dict[str, Content]], passed_over: PassedOver,
    broken: Broken,
) -> list[Entry]:  # fmt: skip
    """The entries of metadata files, each with what else has the name of its files; these leave `groups`."""
    group_of = {str(content): name for name, contents in groups.items() for content in contents.values()}
    entries, used = [], set()
    for file in metadata:
        try:
            rows = in_manifest(file, f"{file.relative_to(folder)} ", passed_over, broken)
        except UnknownColumns as error:
            passed_over.others.append(f"{error} It is not used.")
            continue
        for row in rows:
            files = [os.path.normpath(content) for content in row.contents.values() if isinstance(content, Path)]
            names = dict.fromkeys(group_of[file] for file in files if file in group_of)
            beside = {kind: content for name in names for kind, content in groups[name].items()}
            entries.append(Entry(row.name, beside | row.contents, row.split))
            used.update(names)
    for name in used:
        del groups[name]
    return entries


def _walk(folder: Path, passed_over: PassedOver, broken: Broken) -> Sequence[Path]:
    """All files that are neither hidden nor trash, in an order that does not depend on the machine."""
    files: list[Path] = []
    seen = set()

    def refuse(error: OSError) -> None:
        broken.add(str(error.filename), f"The folder {error.filename} cannot be read ({error.strerror}).")

    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        facts = os.stat(place)
        if (mark := (facts.st_dev, facts.st_ino)) in seen:
            passed_over.links.append(os.path.relpath(place, folder))
            folders.clear()
            continue
        seen.add(mark)
        folders[:] = sorted(name for name in folders if not is_trash(name))
        for name in names:
            if is_trash(name):
                continue
            file = Path(place, name)
            if os.path.isfile(file):
                files.append(file)
            elif modality_of(file.suffix[1:]):
                broken.add(
                    str(file), f"{file} is a link that leads nowhere, or no ordinary file: replace or remove it."
                )
    return sorted(files, key=lambda file: file.parts)
