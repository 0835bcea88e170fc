"""`codi dataset`: preview Shapes & Chimes, or make the emoji dataset."""

from __future__ import annotations

import argparse

from ..media.output_folder import check_folder
from . import emoji
from .arguments import folder_path
from .extras import require


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("dataset", help="preview Shapes & Chimes, or make a dataset of emoji")
    commands = p.add_subparsers(required=True, metavar="COMMAND")
    emoji.add(commands)
    p = commands.add_parser(
        "preview", help="write a contact sheet of Shapes & Chimes with images, videos, captions and audio"
    )
    p.add_argument("--out", type=folder_path, required=True)
    p.add_argument("--count", type=int, default=24)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--split", default="train", help="train (default), held_out or all")
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    check_folder(options.out)
    require("torch", "numpy", "PIL")
    from ..data.preview import write_preview

    print(write_preview(options.out, options.count, options.seed, options.split))
