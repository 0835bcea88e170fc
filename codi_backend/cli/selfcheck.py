"""`codi selfcheck`: check model files, run the model briefly, and write a report that can be posted."""

from __future__ import annotations

import argparse

from .arguments import CHECKPOINTS, file_path
from .extras import MODEL_MODULES, TEXT_MODULES, require


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "selfcheck",
        help="check model files, run the model briefly, and print a report that can be posted",
        description="The report is Markdown, and has no paths of this machine. It is printed on stdout; what is going "
        "on, on stderr. The exit status is 1 if something is wrong.",
    )
    p.add_argument("files", nargs="+", type=file_path, metavar="FILE", help=CHECKPOINTS)
    p.add_argument("--device", default="cpu", help="cpu (default), cuda, mps ...")
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    require(*MODEL_MODULES, *TEXT_MODULES)
    from ..selfcheck import selfcheck
    from .console import print_line
    from .devices import check_device

    check_device(options.device)
    check = selfcheck(options.files, options.device, print_line)
    print(check, flush=True)
    if problems := check.problems:
        more = f" There are {len(problems) - 1} more problems in the report." if len(problems) > 1 else ""
        print_line(f"{problems[0]}{more}")
    return 1 if problems else 0
