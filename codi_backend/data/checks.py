"""Early checks of a user's data, so that a training does not fail after hours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from .broken import SHOWN, Broken, first_names
from .contents import Entry
from .endings import ENDINGS
from .manifests import exists
from .pairs import Pairs


def check_entries(pairs: Pairs, report: Callable[[str], None] = print, broken: Broken | None = None) -> Pairs:
    """Report how many entries there are of each modality, and refuse data that lack what is asked for.

    No content is read; see `read_all`.

    Parameters
    ----------
    pairs : Pairs
    report : callable
        Called with lines for the user.
    broken : Broken, optional
        Where entries are noted that lack a caption or whose files are missing, if they are to be left out. By default
        the data are refused.

    Returns
    -------
    Pairs
        The same data without these entries.

    Raises
    ------
    ValueError
        If no entry has all that is asked for, or some have all of it but the caption, or files of some are missing.
    """
    broken = broken or Broken()
    needed = _listed(pairs.modalities)
    counts = {name: sum(name in entry.contents for entry in pairs.every) for name in ENDINGS}
    found = ", ".join(f"{count} with {name}" for name, count in counts.items())
    own = sum(entry.contents.get("audio", 0) == entry.contents.get("video", 1) for entry in pairs.every)
    tracks = f" ({own} of the audio tracks are those of videos)" if own else ""
    report(f"{pairs.source}: {len(pairs.every)} entries, {found}{tracks}; {len(pairs)} with {needed}.")
    contents = [name for name in pairs.modalities if name != "text"]
    lacking = [entry for entry in pairs.every if not entry.contents.keys() >= set(pairs.modalities)]
    bare = [entry for entry in lacking if contents and entry.contents.keys() >= set(contents)]
    if bare and not broken.skip:
        raise ValueError(
            f"{len(bare)} of the {len(bare) + len(pairs)} entries of {pairs.source} with {_listed(contents)} "
            f"have no caption: {_names(bare)}. Write it into a .txt file of the same name, or into the manifest; or "
            "leave out such entries with --skip-broken."
        )
    for entry in bare:
        broken.add(entry.name, f"{entry.name} has no caption.")
    if not pairs.entries:
        raise ValueError(
            f"No entry of {pairs.source} has {needed} ({found}): give files of the same name, or put them on one line "
            "of the manifest."
        )
    if others := [entry for entry in lacking if not contents or not entry.contents.keys() >= set(contents)]:
        report(f"{len(others)} entries lack some of {needed} and are left out: {_names(others)}.")
    rows = []
    for row, entry in enumerate(pairs.entries):
        files = [content for name in pairs.modalities if isinstance(content := entry.contents[name], Path)]
        if missing := [file for file in files if not exists(file)]:
            broken.add(entry.name, f"There is no file {missing[0]}, which {entry.name} names.")
        else:
            rows.append(row)
    broken.check(pairs.source)
    return pairs.at(rows)


def check_captions(
    pairs: Pairs, modalities: Sequence[str], report: Callable[[str], None] = print, broken: Broken | None = None
) -> Pairs:
    """Report how many entries there are of each modality, and refuse data that lack one, captions or files.

    Parameters
    ----------
    pairs : Pairs
    modalities : sequence of str
        At least one entry must have each of them with a caption.
    report, broken
        As of `check_entries`.

    Returns
    -------
    Pairs
        The entries that have a caption and at least one other content, or a caption alone, whose files exist.
    """
    broken = broken or Broken()
    found = {name: sum(name in entry.contents for entry in pairs.every) for name in modalities}
    report(f"{pairs.source}: {len(pairs.every)} entries, {', '.join(f'{n} with {name}' for name, n in found.items())}.")
    rows = []
    for row, entry in enumerate(pairs.entries):
        files = [content for content in entry.contents.values() if isinstance(content, Path)]
        if "text" not in entry.contents:
            broken.add(entry.name, f"{entry.name} has no caption.")
        elif missing := [file for file in files if not exists(file)]:
            broken.add(entry.name, f"There is no file {missing[0]}, which {entry.name} names.")
        else:
            rows.append(row)
    broken.check(pairs.source)
    pairs = pairs.at(rows)
    if absent := [name for name in modalities if not any(name in entry.contents for entry in pairs.entries)]:
        raise ValueError(
            f"No entry of {pairs.source} has {_listed(absent)} with a caption, and the model is to have it: give such "
            "entries, or leave its networks out of the configuration."
        )
    return pairs


def read_all(
    pairs: Pairs,
    workers: int = 0,
    broken: Broken | None = None,
    read: Callable[[int], Any] | None = None,
) -> Iterator[Any]:
    """Read all rows, in order, by `workers` processes.

    Parameters
    ----------
    pairs : Pairs
    workers : int
        Processes that read.
    broken : Broken, optional
        Where entries are noted that cannot be read, if they are to be left out.
    read : callable, optional
        Reads a row; by default ``pairs[row]``.

    Raises
    ------
    ValueError
        At the first few entries that cannot be read, or whose captions are empty, with the reason for each; or if none
        can be read.
    """
    broken = broken or Broken()
    count, before = 0, len(broken.faults)
    rows = _Guarded(pairs, read or pairs.__getitem__)
    # A fork of a process with threads, such as ComfyUI's or TensorBoard's, may wait for ever for locks that they hold.
    context = "spawn" if workers else None
    loader = DataLoader(
        rows, batch_size=None, num_workers=workers, collate_fn=_as_it_is, multiprocessing_context=context
    )
    for row, item in enumerate(loader):
        if isinstance(item, _Unreadable):
            broken.add(pairs.entries[row].name, item)
            if not broken.skip and len(broken.faults) == SHOWN:
                broken.check(pairs.source, row + 1 == len(pairs))
        elif broken.skip or not broken.faults:
            count += 1
            yield item
    broken.check(pairs.source)
    if not count and len(broken.faults) > before:
        raise ValueError(f"Nothing of {pairs.source} can be read. {broken.reasons()}")


class _Unreadable(str):
    """Why an entry cannot be read."""


class _Guarded(Dataset):
    """Items, or the reasons why they cannot be read."""

    def __init__(self, pairs: Pairs, read: Callable[[int], Any]):
        self.pairs, self.read = pairs, read

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.read(index)
        except (ValueError, OSError) as error:
            return _Unreadable(error)


def _as_it_is(item: Any) -> Any:
    return item


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _names(entries: Sequence[Entry]) -> str:
    return first_names([entry.name for entry in entries])
