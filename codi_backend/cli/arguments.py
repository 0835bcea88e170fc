"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

Prompted = tuple[str, str, float]  # modality, text or path, weight

CHECKPOINTS = "mini, emoji, vd-mini, files of this pack, published files, or a folder of such files"
MODEL = "mini (default), emoji, vd-mini, checkpoint files or their folder"


def file_path(value: str) -> str:
    """Argument type of a file's name."""
    if not value or "\0" in value:
        raise argparse.ArgumentTypeError(f"{value!r} is not a file name")
    return value


def folder_path(value: str) -> Path:
    """Argument type of a folder's name."""
    if not value.strip() or any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise argparse.ArgumentTypeError(f"{value!r} is not a folder name")
    return Path(value)


def add_prompts(p: argparse.ArgumentParser) -> None:
    """Add the options for prompts; ``options.prompts`` are (modality, text or path, weight)."""
    for name, text in _PROMPTS.items():
        p.add_argument(
            f"--{name}",
            dest="prompts",
            action="append",
            type=functools.partial(prompt, name),
            metavar=_METAVARS.get(name, "FILE[@START][:WEIGHT]"),
            help=text,
        )


_PROMPTS = {
    "text": 'a prompt, as in "three red stars, slowly"; may be empty',
    "image": "an image as a prompt",
    "video": "a video as a prompt, without its audio; frames spread evenly from START (in seconds) on are encoded",
    "audio": "audio, or a video's audio, as a prompt; long audio is cut to its middle, or to what begins at START",
}
_METAVARS = {"text": "TEXT[:WEIGHT]", "image": "FILE[:WEIGHT]"}


def prompt(name: str, value: str) -> tuple[str, str, float]:
    """Split the weight from the end of a prompt.

    The weight is 1 for a text that ends in a time or a ratio, and for a path that exists as a whole.
    """
    if name == "text" and any(0xD800 <= ord(character) < 0xE000 for character in value):
        raise argparse.ArgumentTypeError(f"{value!r} is not valid UTF-8")
    if name != "text":
        file_path(value)
    content, _, weight = value.rpartition(":")
    whole = content[-1:].isdigit() if name == "text" else os.path.exists(value) or len(content) < 2
    if whole or not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", weight):
        return name, value, 1.0
    return name, content, float(weight)


class At(argparse.Action):
    """``--at SECONDS``: the prompts that follow it on the command line start there.

    ``options.starts`` are (number of prompts before it, seconds).
    """

    def __call__(self, parser, namespace, values, option_string=None):
        before = len(namespace.prompts or ())
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), (before, values)])


def by_start(prompts: Sequence[Prompted], starts: Sequence[tuple[int, float]]) -> list[tuple[float, list[Prompted]]]:
    """Prompts in groups that start together, ascending, with the seconds at which they do.

    `ValueError` where no prompt follows an ``--at``.
    """
    groups: dict[float, list[Prompted]] = {}
    bounds = [(0, 0.0), *starts, (len(prompts), 0.0)]
    for (first, start), (end, _) in itertools.pairwise(bounds):
        if first == end and (first, start) in starts:
            raise ValueError(
                f"--at {start:g} is not followed by a prompt: write it before the prompts that start there."
            )
        if first < end:
            groups.setdefault(start, []).extend(prompts[first:end])
    return sorted(groups.items())


def use_threads(threads: int | None) -> None:
    """Set the number of CPU threads of torch; `ValueError` for less than 1."""
    import torch

    if threads is not None:
        if threads < 1:
            raise ValueError(f"--threads {threads} is out of range: choose 1 or more.")
        torch.set_num_threads(threads)
