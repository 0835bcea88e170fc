"""`codi evaluate`: measure a model by rule-based judges."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..media.output_folder import check_folder
from .arguments import MODEL, file_path, folder_path
from .extras import MODEL_MODULES, TEXT_MODULES, require


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "evaluate",
        help="measure fidelity, coupling and synchrony by rule-based judges",
        description="Under `accelerate launch -m codi_backend evaluate ...` several processes share the work.",
    )
    p.add_argument("--model", nargs="+", type=file_path, default=["mini"], help=MODEL)
    p.add_argument("--samples", type=int, default=200, help="results behind each figure (default: 200)")
    p.add_argument("--clips", type=int, help="results behind figures of videos, which are slow (default: --samples)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, help="sampling steps (default: the model's own)")
    p.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    p.add_argument("--candidates", type=int, help="N of best-of-N for joint results (default: the model's own)")
    p.add_argument("--data", type=folder_path, help="dataset of codi dataset emoji to measure on (default: coloured "
                   "shapes, which need no files)")  # fmt: skip
    p.add_argument("--runs", nargs="+", metavar="RUN", help="perform these runs only (default: all)")
    p.add_argument("--device", default="cpu", help="cpu (default), cuda, mps ...")
    p.add_argument("--out", type=folder_path, default=Path("evaluation"), help="folder for tables, plots and judged "
                   "runs; finished runs in it are reused (default: evaluation)")  # fmt: skip
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    check_folder(options.out)
    require(*MODEL_MODULES, *TEXT_MODULES, "scipy", "matplotlib")
    from ..evaluation.evaluate import evaluate
    from ..pipeline import CoDi
    from ..processes import launched
    from .devices import check_device, place

    settings = (options.samples, options.clips, options.seed, options.steps, options.guidance)

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    check_device(options.device)
    processes = launched()
    codi = place(CoDi.load(options.model), processes.device(options.device))
    report = evaluate(codi, options.out, *settings, options.candidates, options.runs, log, processes, options.data)
    if processes.first:
        print(report)
