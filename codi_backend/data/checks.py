"""Early checks of a user's data, so that a training does not fail after hours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from .entries import ENDINGS, Entry
from .pairs import Pairs

_SHOWN = 5  # offenders that a message names


def check_entries(pairs: Pairs, report: Callable[[str], None] = print) -> None:
    """Report how many entries there are of each modality, and refuse data that lack what is asked for.

    No content is read; see `read_all`.

    Raises
    ------
    ValueError
        If no entry has all that is asked for, or some have all of it but the caption.
    """
    needed = _listed(pairs.modalities)
    counts = {name: sum(name in entry.contents for entry in pairs.every) for name in ENDINGS}
    found = ", ".join(f"{count} with {name}" for name, count in counts.items())
    report(f"{pairs.source}: {len(pairs.every)} entries, {found}; {len(pairs)} with {needed}.")
    contents = [name for name in pairs.modalities if name != "text"]
    silent = [e for e in pairs.every if contents and e.contents.keys() & {*contents, "text"} == set(contents)]
    if "text" in pairs.modalities and silent:
        raise ValueError(
            f"{len(silent)} of the {len(silent) + len(pairs)} entries of {pairs.source} with {_listed(contents)} "
            f"have no caption: {_names(silent)}. Write it into a .txt file of the same name, or into the manifest."
        )
    if not pairs.entries:
        raise ValueError(
            f"No entry of {pairs.source} has {needed} ({found}): give files of the same name, or put them on one line "
            "of the manifest."
        )
    if others := [entry for entry in pairs.every if not entry.contents.keys() >= set(pairs.modalities)]:
        report(f"{len(others)} entries lack some of {needed} and are left out: {_names(others)}.")


def read_all(pairs: Pairs, workers: int = 0) -> Iterator[dict[str, Any]]:
    """All items in order, read by `workers` processes.

    `ValueError` at the first few that cannot be read, or whose captions are empty, with the reason for each.
    """
    faults = []
    for item in DataLoader(_Guarded(pairs), batch_size=None, num_workers=workers, collate_fn=_as_it_is):
        if isinstance(item, str):
            faults.append(item)
        elif not faults:
            yield item
        if len(faults) == _SHOWN:
            break
    if faults:
        more = " There may be more." if len(faults) == _SHOWN else ""
        raise ValueError(f"{pairs.source} holds what cannot be read. {' '.join(faults)}{more}")


class _Guarded(Dataset):
    """Items, or sentences about what is wrong with them."""

    def __init__(self, pairs: Pairs):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any] | str:
        try:
            item = self.pairs[index]
        except (ValueError, OSError) as error:
            return str(error)
        return item if item.get("text", "a caption") else f"The caption of {self.pairs.entries[index].name} is empty."


def _as_it_is(item: Any) -> Any:
    return item


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _names(entries: Sequence[Entry]) -> str:
    names = ", ".join(entry.name for entry in entries[:_SHOWN])
    return names + (" ..." if len(entries) > _SHOWN else "")
