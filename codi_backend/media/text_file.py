"""Text files."""

from __future__ import annotations

import os

from .files import UnreadableFile, require_content

_MOST_CHARACTERS = 1_000_000


def read_text(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file, without the space around it.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file.
    """
    require_content(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read(_MOST_CHARACTERS).strip()
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{path} is not a text file in UTF-8: save it as UTF-8.") from error
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read ({error.strerror}): give another file.") from error
