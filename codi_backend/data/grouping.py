"""Files that share a name make one entry."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from .broken import Broken
from .contents import Content, Entry, Member, first_bytes
from .endings import HEAD, may_be_animated, modality_of
from .passed_over import PassedOver

_TRASH = {
    *("__macosx", "$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    *("@eadir", "@recycle", "#recycle", "#snapshot", "@__thumb", "lost+found", "__pycache__"),
}


def is_trash(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or is made by a system or a file server."""
    return name.lower() in _TRASH or (name.startswith(".") and name not in (".", ".."))


def group(
    files: Iterable[tuple[str, str, Path | Member]], passed_over: PassedOver, broken: Broken
) -> dict[str, dict[str, Content]]:
    """Contents by modality, by the names that files have without their endings.

    Parameters
    ----------
    files : iterable of (str, str, Path or Member)
        Name without the ending, ending without its dot, and the file. Files of unknown endings are passed over.
    passed_over, broken
        Where files are noted that are not used. Two files of one name and one modality are broken.
    """
    groups: dict[str, dict[str, Content]] = {}
    twice: set[str] = set()
    for name, ending, content in files:
        key = unicodedata.normalize("NFC", name)  # macOS writes accents in another form than others
        if (kind := modality_of_file(content, ending)) is None:
            passed_over.add(Path(str(content)).name, ending)
            continue
        contents = groups.setdefault(key, {})
        if kind in contents:
            broken.add(name, f"{contents[kind]} and {content} have one name and are both {kind}: rename or remove one.")
            twice.add(key)
        contents[kind] = content
    return {key: contents for key, contents in groups.items() if key not in twice}


def modality_of_file(content: Path | Member, ending: str | None = None) -> str | None:
    """The modality of a file, by its ending or, if it may be animated, its first bytes; None if it is not known."""
    if ending is None:
        ending = Path(str(content)).suffix[1:]
    try:
        head = first_bytes(content, HEAD) if may_be_animated(ending) else b""
    except (OSError, ValueError):  # reported where the file is read
        head = b""
    return modality_of(ending, head)


def as_entries(groups: dict[str, dict[str, Content]]) -> Sequence[Entry]:
    """Groups in their order."""
    return [Entry(name, contents) for name, contents in groups.items()]
