"""What all readers of media files share: limits, and a sentence for every file that cannot be read."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

LONGEST = 600  # seconds
MOST_PIXELS = 90_000_000

_REMEDIES = {
    "an image": "give a PNG, JPEG, WebP or the like",
    "audio": "give a WAV, FLAC, MP3 or the like, or a video that has audio",
    "a video": "give an MP4, WebM, GIF or the like",
}


class UnreadableFile(ValueError):
    """A file that cannot be read; the message names it and a remedy."""


@contextlib.contextmanager
def readable(path: str | os.PathLike, kind: str) -> Iterator[None]:
    """Guard the reading of a file.

    Parameters
    ----------
    path : path
    kind : str
        What it is read as: "an image", "audio" or "a video".

    Raises
    ------
    FileNotFoundError
        There is no such file.
    UnreadableFile
        It is a folder, or empty, or the body raised an error of any other kind. Libraries raise many kinds for damaged
        files, and none of their messages names the file.
    """
    require_content(path)
    try:
        yield
    except UnreadableFile:
        raise
    except MemoryError as error:
        raise UnreadableFile(f"{path} needs more memory than there is: give a smaller file.") from error
    except Exception as error:
        raise UnreadableFile(f"{path} cannot be read as {kind}{_reason(error)}: {_REMEDIES[kind]}.") from error


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keep Pillow's warnings of broken metadata from the user. Not for generators: the state is the process's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def require_content(path: str | os.PathLike) -> None:
    """Refuse what is no file with something in it."""
    file = Path(path)
    if file.is_dir():
        raise UnreadableFile(f"{path} is a folder: give a file.")
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if file.stat().st_size == 0:
        raise UnreadableFile(f"{path} is empty: it has no content.")


def enormous(path: str | os.PathLike) -> UnreadableFile:
    return UnreadableFile(f"{path} is enormous: bring it below {MOST_PIXELS // 10**6} megapixels first.")


def too_long(path: str | os.PathLike) -> UnreadableFile:
    return UnreadableFile(f"{path} lasts more than {LONGEST // 60} minutes: cut out the part that matters first.")


def _reason(error: Exception) -> str:
    """The library's message in parentheses, on one line, if it has one that is not the file's name alone."""
    text = getattr(error, "strerror", None) or str(error)
    text = " ".join(text.split())[:200].rstrip(".")
    return f" ({text})" if text and not text.startswith("cannot identify image file") else ""
