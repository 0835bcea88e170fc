"""`codi dataset emoji`: make a dataset of emoji from public packages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..media.output_folder import check_folder
from .arguments import folder_path
from .console import print_line
from .extras import require

_ROOM = 1_000_000_000  # bytes; the dataset takes 0.6 GB at 64 pixels


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "emoji",
        help="make a dataset of emoji in several styles, moving, spoken and played",
        description="Fetches packages with npm and apt-get after asking, and makes files and a manifest from them. "
        "An interrupted run goes on with the same command.",
    )
    p.add_argument("--out", type=folder_path, required=True)
    p.add_argument("--size", type=int, default=64, help="of images and videos in pixels: 64 (default) or 128")
    p.add_argument("--only", nargs="+", metavar="KIND", help="images, videos, speech, instruments, samples (default: "
                   "all); kinds that the folder holds already stay")  # fmt: skip
    p.add_argument("--groups", nargs="+", metavar="GROUP", help="smileys, people, animals, food, travel, activities, "
                   "objects, symbols, flags, or subgroups as animal-bird and food-fruit; an unknown name lists them "
                   "(default: all groups); instruments are made in any case")  # fmt: skip
    p.add_argument("--packages", type=folder_path, help="folder for the packages (default: .packages in the dataset)")
    p.add_argument("--yes", action="store_true", help="fetch without asking")
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    require("torch", "numpy", "PIL", "tqdm", "av")
    from ..data.emoji import packages
    from ..data.emoji.build import build, settings_of
    from ..data.emoji.concepts import GROUPS
    from ..data.emoji.gather import fetch, missing_programs, to_fetch

    groups = options.groups or GROUPS
    kinds = settings_of(options.out, options.size, options.only or packages.KINDS, groups)
    if "images" in kinds:
        require("resvg_py")
    if "instruments" in kinds:
        require("tinysoundfont")
    folder = options.packages or options.out / ".packages"
    absent = to_fetch(packages.needed(kinds), folder)
    if missing := missing_programs(absent, kinds):
        raise ValueError(f"{'. '.join(missing)}. Kinds that need none of that can be made with --only.")
    size = sum(package.size for package in absent)
    check_folder(options.out, _ROOM + (0 if options.packages else size))
    check_folder(folder, size)
    if absent and not _agreed(absent, folder, options.yes):
        return
    fetch(absent, folder, lambda line: print_line(f"fetching {line}"))
    for kind, numbers in build(options.out, folder, options.size, kinds, _progress, groups).items():
        print(f"{kind:<18}{numbers['train']:>7} train {numbers['test']:>7} test")
    print(f"{options.out / 'index.html'} has examples, {options.out / 'ATTRIBUTIONS.md'} the licences.")


def _agreed(absent, folder: Path, yes: bool) -> bool:
    """Print what is to be fetched, and ask."""
    from ..data.emoji.gather import megabytes

    for package in absent:
        print(f"{megabytes(package.size):>9}  {package.name} {package.version}, {package.licence}, by {package.client}")
    question = f"{megabytes(sum(package.size for package in absent))} are fetched into {folder}."
    if yes:
        print(question)
        return True
    if not sys.stdin.isatty():
        raise ValueError(f"{question} Repeat the command with --yes to agree.")
    return input(f"{question} Go on? [y/N] ").strip().lower() in ("y", "yes")


def _progress(items, what: str, count: int):
    from tqdm import tqdm

    return tqdm(items, desc=what, total=count or None, unit="")
