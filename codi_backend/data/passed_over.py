"""Files of a user's data that are not used, and the messages about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .broken import first_names
from .endings import ARCHIVES, CONVERT, MANIFESTS

_SHOWN = 12  # endings that a line names


@dataclass
class PassedOver:
    """Files that a search finds but does not use: numbers of files by ending, names, and further lines."""

    endings: Counter[str] = field(default_factory=Counter)
    archives: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def add(self, name: str, ending: str) -> None:
        """Note a file whose ending has no modality."""
        last = ending.lower().rpartition(".")[2]
        if last in ARCHIVES:
            self.archives.append(name)
        elif last in MANIFESTS and last != "json":  # of which there may be one beside every image
            self.manifests.append(name)
        else:
            self.endings[f".{last}" if last else "no ending"] += 1

    def lines(self) -> list[str]:
        """Sentences for the user, none if everything is used."""
        lines = list(self.others)
        if self.archives:
            lines.append(f"{_files(len(self.archives))} packed and not read: {first_names(self.archives)}. Unpack "
                        "what belongs to the data, or pack it as .tar without compression.")  # fmt: skip
        if self.manifests:
            lines.append(
                f"{_files(len(self.manifests))} not read: {first_names(self.manifests)}. A manifest is given itself as "
                "the data, or is called metadata.csv or metadata.jsonl and names files as file_name."
            )
        if self.links:
            lines.append(
                f"{len(self.links)} folder(s) are links to others, which are read once: {first_names(self.links)}."
            )
        if self.endings:
            counts = [f"{ending} ({count})" for ending, count in self.endings.most_common(_SHOWN)]
            rest = " ..." if len(self.endings) > _SHOWN else ""
            total = sum(self.endings.values())
            lines.append(f"{_files(total)} not used for unknown endings: {', '.join(counts)}{rest}.")
        for form in dict.fromkeys(CONVERT.values()):
            if names := sorted(e for e in self.endings if CONVERT.get(e[1:]) == form):
                lines.append(f"Files that end in {', '.join(names)} cannot be read: convert them to {form}.")
        return lines


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"
