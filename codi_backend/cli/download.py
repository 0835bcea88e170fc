"""`codi download`: fetch the published files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .arguments import folder_path
from .extras import require


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("download", help="fetch the published files from the Hugging Face hub (up to 37 GB)")
    p.add_argument("--model", default="codi", help="codi (default), or versatile: Versatile Diffusion")
    p.add_argument("--out", type=folder_path, help="folder for files (default: checkpoints/EDITION, or MODEL-EDITION)")
    p.add_argument("--edition", default="current", help="current (default), fp16 or first")
    p.add_argument("--only", nargs="+", metavar="FILE", help="names of the files, as in CoDi_encoders.pth")
    p.add_argument("--yes", action="store_true", help="do not ask")
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    require("torch", "numpy", "safetensors", "diffusers")
    from ..checkpoints import download as hub

    def confirmed() -> bool:
        if options.yes:
            return True
        if sys.stdin is None or not sys.stdin.isatty():
            raise ValueError("The download needs a confirmation, and stdin is not a terminal: confirm with --yes.")
        try:
            return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    name = options.edition if options.model == "codi" else f"{options.model}-{options.edition}"
    out = options.out or Path("checkpoints", name)
    for path in hub.download(out, options.edition, options.only, confirmed, model=options.model):
        print(path)
