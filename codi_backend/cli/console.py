"""Output of the `codi` command on a terminal or in a pipe: errors and hints as one line each."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator

from .extras import installed, missing

_NO_MEMORY = re.compile(
    "out of memory|can't allocate memory|not enough memory|storage size calculation overflowed", re.I
)


def print_line(text: str) -> None:
    """Print a line on stderr that begins with the command's name."""
    print(f"codi: {_one_line(text)}", file=sys.stderr, flush=True)


def error_message(error: Exception) -> str | None:
    """Message to the user about an error; None for a programming error."""
    if isinstance(error, ModuleNotFoundError) and error.name and not installed(error.name.partition(".")[0]):
        return str(missing(error.name))
    if isinstance(error, ImportError):
        return f"{error.name or 'A module'} cannot be imported ({error}): install it again."
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return "There is not enough memory for this: choose fewer or smaller results, or a smaller batch."
    if isinstance(error, OSError) and error.errno is not None:
        what = "A file" if error.filename is None else error.filename
        return f"{what} cannot be read or written ({error.strerror}): check path, permissions and free space."
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        return str(error)
    return None


def any_encoding() -> None:
    """Escape characters on stdout and stderr that the terminal's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def hints() -> Iterator[None]:
    """Print each warning about a text once, as a line of the command; other warnings are printed by Python."""
    usual, printed = warnings.showwarning, set()

    def show(message: Warning | str, category: type[Warning], *more: object) -> None:
        if category.__name__ != "TextHint":  # importing it would import torch
            usual(message, category, *more)
        elif str(message) not in printed:
            printed.add(str(message))
            print_line(f"hint: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def drop_output() -> None:
    """Discard what is still buffered for stdout, whose reader has closed it, as after ``| head``."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(text: str) -> str:
    """Escape line breaks and other control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda m: repr(m.group())[1:-1], text.strip())
