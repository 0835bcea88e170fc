"""`codi pack`: write a finished run as checkpoint files."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..media.output_folder import check_folder
from .arguments import folder_path
from .extras import MODEL_MODULES, require


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("pack", help="write a finished run as half-precision checkpoint files")
    p.add_argument(
        "--run", dest="folder", type=folder_path, default=Path("runs/mini"), help="run folder (default: runs/mini)"
    )
    p.add_argument("--out", type=folder_path, required=True)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    check_folder(options.out)
    require(*MODEL_MODULES)
    from ..training.pack import pack

    for path in pack(options.folder, options.out):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
