"""Entries of a user's data that cannot be used: refused, or left out and reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SHOWN = 5  # entries that a message names


class Fault(NamedTuple):
    """An entry that cannot be used, and a sentence with the reason."""

    entry: str
    reason: str


class Broken:
    """Collects entries that cannot be used.

    Parameters
    ----------
    skip : bool
        Whether training goes on without them; otherwise `check` refuses the data.
    """

    def __init__(self, skip: bool = False):
        self.skip = skip
        self.faults: list[Fault] = []

    def add(self, entry: str, reason: str) -> None:
        """Record a fault; bytes of names that are not Unicode are escaped."""
        self.faults.append(Fault(printable(entry), printable(reason)))

    def check(self, source: str, complete: bool = True) -> None:
        """Raise `ValueError` with the first few reasons, unless broken entries are to be left out.

        Parameters
        ----------
        source : str
            Name of the data in the message.
        complete : bool
            Whether all entries have been checked.
        """
        if self.faults and not self.skip:
            raise ValueError(
                f"{source} has entries that cannot be used. {self.reasons()}"
                f"{'' if complete else ' There may be more.'} Mend it, or go on without such entries by --skip-broken."
            )

    def reasons(self) -> str:
        """The first few reasons, and how many more there are."""
        more = f" There are {len(self.faults) - SHOWN} more." if len(self.faults) > SHOWN else ""
        return " ".join(fault.reason for fault in self.faults[:SHOWN]) + more

    def write(self, path: Path) -> None:
        """Write one line an entry, with its name and the reason; no file if nothing was left out."""
        if not self.faults:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{fault.entry}: {' '.join(fault.reason.split())}\n" for fault in self.faults]
        path.write_text("".join(lines), encoding="utf-8")


def printable(text: str) -> str:
    """The text with escapes in place of what is not Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()


def first_names(names: Sequence[str]) -> str:
    """The first few of these names, as a message shows them."""
    return printable(", ".join(names[:SHOWN])) + (" ..." if len(names) > SHOWN else "")
