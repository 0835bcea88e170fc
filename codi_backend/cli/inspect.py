"""`codi inspect`: report what checkpoint files hold."""

from __future__ import annotations

import argparse

from .arguments import CHECKPOINTS, file_path
from .extras import MODEL_MODULES, require


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "inspect", help="report what checkpoint files hold, and check that parts are complete and weights are finite"
    )
    p.add_argument("files", nargs="+", type=file_path, metavar="FILE", help=CHECKPOINTS)
    p.add_argument("--names-only", action="store_true", help="do not read the weights, which is slow for large files")
    p.add_argument("--json", action="store_true", help="print the findings as JSON")
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    require(*MODEL_MODULES)
    from ..checkpoints import inspect as inspection

    findings = inspection.inspect(options.files, values=not options.names_only)
    print(findings.to_json() if options.json else findings)
    return 0 if findings.sound else 1
