"""Text files as users have them: UTF-8, and UTF-16 or UTF-32 with a byte order mark; nothing is guessed."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

_MOST_BYTES = 1_000_000  # of a caption

# The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_END = re.compile(r"\r\n|\r|\n")
# UTF-16 without a mark, and Japanese in ISO-2022, are valid UTF-8 with these in it.
_NO_TEXT = re.compile("[\x00\x1b]")


def read_caption(path: str | os.PathLike) -> str:
    """The text of a file, without the space around it.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file, and the line if the encoding is not one that `decode_text` knows.
    """
    return decode_text(read_bytes(path, _MOST_BYTES), path).strip()


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """The bytes of a text file, of which there may be `most`; errors as of `read_caption`."""
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"{path} is a folder: give a file.")
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with open(file, "rb") as opened:
            data = opened.read(most + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be opened ({error.strerror}): make it readable.") from error
    if not data:
        raise ValueError(f"{path} is empty: it has no content.")
    if len(data) > most:
        raise ValueError(f"{path} has more than {most} bytes: that is no text of this kind. Shorten it.")
    return data


def decode_text(data: bytes, path: str | os.PathLike) -> str:
    """The text that `data` holds; line ends stay as they are.

    The encoding is that of the byte order mark, otherwise UTF-8. Windows' code pages (cp1252 and others) cannot be
    distinguished with certainty, so that they are refused.

    Raises
    ------
    ValueError
        With a sentence that names `path` and the line.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = line_of(data[: error.start].decode(encoding, "ignore"))
        excel = " (in Excel, as the type 'CSV UTF-8')" if str(path).lower().endswith(".csv") else ""
        raise ValueError(
            f"Line {line} of {path} is not text in {_NAMES[encoding]}: save the file as UTF-8{excel}."
        ) from error
    if strange := _NO_TEXT.search(text):
        raise ValueError(
            f"Line {line_of(text[: strange.start()])} of {path} holds the control character "
            f"U+{ord(strange.group()):04X}, so it is no plain text in UTF-8: save it as UTF-8."
        )
    return text


def line_of(before: str) -> int:
    """The number of the line that follows on this text."""
    return len(_LINE_END.findall(before)) + 1


_NAMES = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8, by its byte order mark",
    "utf-16": "UTF-16, by its byte order mark",
    "utf-32": "UTF-32, by its byte order mark",
}
