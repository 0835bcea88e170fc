"""The file of `codi generate --prompts`: a JSON object a line, whose keys are the options of the command."""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.broken import Broken
from ..data.manifest_rows import Row, normalised, read_rows
from ..data.manifests import path_beside
from ..modalities import MODALITIES
from .arguments import file_path, prompt

ENDINGS = (".jsonl", ".ndjson")
_WHOLE = ("count", "seed", "steps", "frames", "image_size", "audio_track", "candidates")
_NUMBERS = ("guidance", "seconds", "window", "overlap", "strength", "alignment_scale", "focus", "fidelity")
_NAMES = ("interpolation", "sampler", "alignment")
SETTINGS = (*_WHOLE, *_NUMBERS, *_NAMES, "outputs", "keep_sound")
KEYS = (*MODALITIES, "hold", *SETTINGS)


@dataclass(frozen=True)
class Line:
    """One line that is not empty.

    Attributes
    ----------
    number : int
        From 1, as an editor counts.
    options : Namespace or None
        Of a run of `codi generate`; None if the line cannot be understood.
    failure : str
        The reason, with the number of the line.
    """

    number: int
    options: argparse.Namespace | None
    failure: str = ""


def read_lines(path: Path, defaults: argparse.Namespace) -> list[Line]:
    """The lines of a file of prompts.

    Parameters
    ----------
    path : Path
        Paths in it are relative to its folder.
    defaults : Namespace
        Options of the command, which hold where a line has no value of its own.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence that names the file, if there are no lines in it.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path} is no file of prompts: give a .jsonl with one JSON object a line.")
    broken = Broken(skip=True)
    rows = read_rows(path, KEYS, broken)
    lines = [Line(_number(fault.entry), None, fault.reason) for fault in broken.faults]
    for row in rows:
        where = f"{row.name.capitalize()} of {path}"
        try:
            lines.append(Line(_number(row.name), _options(row, path.parent, defaults)))
        except (ValueError, argparse.ArgumentTypeError) as error:
            lines.append(Line(_number(row.name), None, f"{where}: {str(error).rstrip('.')}."))
    if not lines:
        raise ValueError(f"{path} has no lines: write one JSON object a line.")
    return sorted(lines, key=lambda line: line.number)


def _number(name: str) -> int:
    return int(name.removeprefix("line "))


def _options(row: Row, folder: Path, defaults: argparse.Namespace) -> argparse.Namespace:
    options = copy.copy(defaults)
    options.prompts, options.held = [], []
    seen: set[str] = set()
    for written, value in row.values.items():
        key = normalised(written).replace("-", "_")
        if key not in KEYS:
            raise ValueError(f"{written!r} is no option of a line; choose from {', '.join(KEYS)}")
        if key in seen:
            raise ValueError(f"{key} is named twice: name it once")
        seen.add(key)
        if value is None:
            continue
        if key in MODALITIES:
            options.prompts += _prompts(key, value, folder)
        elif key == "hold":
            options.held = _held(value, folder)
        elif key == "outputs":
            options.outputs = _texts(key, value)
        else:
            setattr(options, key, _setting(key, value))
    return options


def _prompts(name: str, value: Any, folder: Path) -> list[tuple[str, str, float]]:
    texts = _texts(name, value)
    return [prompt(name, text if name == "text" else _beside(folder, text, name)) for text in texts]


def _held(value: Any, folder: Path) -> list[tuple[str, str]]:
    if not isinstance(value, dict) or not all(isinstance(path, str) for path in value.values()):
        raise ValueError(f'hold is {value!r:.80}: write files by modality, as in {{"video": "rain.mp4"}}')
    return [(name, _beside(folder, path, name)) for name, path in value.items()]


def _beside(folder: Path, value: str, name: str) -> str:
    return str(path_beside(folder, file_path(value), name))


def _texts(key: str, value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key} is {value!r:.80}: write a text, or several in brackets")
    return texts


def _setting(key: str, value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if key in _WHOLE:
        valid, kind = number and (isinstance(value, int) or value.is_integer()), "a whole number"
    elif key in _NUMBERS:
        valid, kind = number, "a number"
    elif key in _NAMES:
        valid, kind = isinstance(value, str), "a text"
    else:
        valid, kind = isinstance(value, bool), "true or false"
    if not valid:
        raise ValueError(f"{key} is {value!r:.80}: write {kind}")
    return int(value) if key in _WHOLE else value
