"""`codi similarity`: compare the embeddings of prompts and outputs, or the timing of clips' audio and video."""

from __future__ import annotations

import argparse

from ..media.output_folder import check_folder, replacing
from . import av_align
from .arguments import MODEL, add_prompts, file_path, folder_path
from .extras import MODEL_MODULES, TEXT_MODULES, require


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("similarity", help="compare the embeddings of prompts and outputs, joint and independent")
    add_prompts(p)
    p.add_argument("--outputs", nargs="+", metavar="MODALITY", help="outputs to generate (default: all of the model)")
    p.add_argument("--count", type=int, default=1, help="results to average over (default: 1)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, help="sampling steps (default: the model's own)")
    p.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    p.add_argument("--model", nargs="+", type=file_path, default=["mini"], help=MODEL)
    p.add_argument("--out", type=folder_path, help="folder for similarity.json and similarity.png, or av_align.json")
    p.add_argument("--av-align", nargs="+", type=file_path, metavar="FILE", help="instead, AV-Align of videos that "
                   "have audio: how far onsets and peaks of motion coincide, beside a shuffled baseline")  # fmt: skip
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.av_align:
        return av_align.measure(options)
    if options.out is not None:
        check_folder(options.out)
    files = {name for name, *_ in options.prompts or ()}
    require(*MODEL_MODULES, *TEXT_MODULES, "scipy", *(("av",) if files & {"video", "audio"} else ()))
    import dataclasses
    import json

    from ..checks.numbers import require_whole
    from ..evaluation.heat_map import heat_map
    from ..evaluation.similarity import compare_alignments, read_content
    from ..pipeline import CoDi
    from .request import MOST_RESULTS

    codi = CoDi.load(options.model)
    prompts = options.prompts or [("text", "", 1.0)]
    matrices = compare_alignments(
        codi,
        [(name, read_content(codi, name, value), weight) for name, value, weight in prompts],
        options.outputs or codi.outputs,
        require_whole(options.count, "--count", 1, MOST_RESULTS),
        seed=options.seed,
        steps=options.steps,
        guidance=options.guidance,
    )
    plain = json.dumps({name: dataclasses.asdict(matrix) for name, matrix in matrices.items()}, indent=1)
    print(plain if options.json else "\n".join(f"{name}:\n{matrix}\n" for name, matrix in matrices.items()))
    if options.out is not None:
        with replacing(options.out) as folder:
            (folder / "similarity.json").write_text(plain + "\n")
            heat_map(matrices).save(folder / "similarity.png")
