"""What the commands do, with the options that were parsed. Heavy modules are imported when a command runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .extras import require
from .output_folder import check_folder, replacing

_MODEL = ("torch", "numpy", "PIL", "safetensors", "diffusers")
_TEXTS = ("torchvision", "open_clip")  # which imports the other


def generate(options: argparse.Namespace) -> None:
    """`codi generate`."""
    check_folder(options.out)
    files = {name for name, *_ in (*(options.prompts or ()), *options.held)} | {*(options.outputs or ())}
    require(*_MODEL, "tqdm", *_TEXTS, *(("av",) if files & {"video", "audio"} else ()))
    from .devices import check_device
    from .generation import generate_to_folder

    check_device(options.device)
    generate_to_folder(options)


def preview(options: argparse.Namespace) -> None:
    """`codi dataset preview`."""
    check_folder(options.out)
    require("torch", "numpy", "PIL")
    from .data.preview import write_preview

    print(write_preview(options.out, options.count, options.seed, options.split))


def train(options: argparse.Namespace) -> None:
    """`codi train`."""
    require(*_MODEL, *_TEXTS, "accelerate", "tensorboard", "matplotlib")
    import dataclasses

    from .training.execution import Execution

    _use_threads(options.threads)
    names = ("steps", "batch_size", "learning_rate", "seed")
    changes = {name: value for name in names if (value := getattr(options, name)) is not None}
    execution = Execution(
        options.precision, options.micro_batches, options.checkpointing, options.workers, options.sample_every
    )

    def report(line: str) -> None:
        print(line, flush=True)

    if options.data is not None:
        from .training import finetune

        chosen = dataclasses.replace(finetune.OPTIONS, **changes)
        out, init = options.out or Path("runs/own"), options.init or ["mini"]
        check_folder(out)
        finetune.finetune(
            options.stage,
            Path(options.data),
            out,
            init,
            options.streams or (),
            chosen,
            report,
            execution,
            options.skip_broken,
        )
        return
    if options.init or options.streams or options.skip_broken:
        raise ValueError("--init, --streams and --skip-broken are for your own data: give it with --data.")

    from .training.recipe import OPTIONS, STAGES, VERSATILE, run_stage

    out = options.out or Path("runs/versatile" if options.stage in VERSATILE else "runs/mini")
    check_folder(out)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        recipe = dataclasses.replace(OPTIONS[stage], **changes) if stage in OPTIONS else None
        run_stage(stage, out, recipe, report, execution)


def pack(options: argparse.Namespace) -> None:
    """`codi pack`."""
    check_folder(options.out)
    require(*_MODEL)
    from .training import recipe

    for path in recipe.pack(options.folder, options.out):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


def evaluate(options: argparse.Namespace) -> None:
    """`codi evaluate`."""
    check_folder(options.out)
    require(*_MODEL, *_TEXTS, "scipy", "matplotlib")
    from .devices import check_device, place
    from .evaluation.evaluate import evaluate
    from .model import CoDi

    _use_threads(options.threads)
    settings = (options.samples, options.clips, options.seed, options.steps, options.guidance)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    check_device(options.device)
    codi = place(CoDi.load(options.model), options.device)
    print(evaluate(codi, options.out, *settings, options.candidates, options.runs, options.extend, say))


def similarity(options: argparse.Namespace) -> None:
    """`codi similarity`."""
    if options.out is not None:
        check_folder(options.out)
    files = {name for name, *_ in options.prompts or ()}
    require(*_MODEL, *_TEXTS, "scipy", *(("av",) if files & {"video", "audio"} else ()))
    import dataclasses
    import json

    from .checks import require_whole
    from .evaluation.heat_map import heat_map
    from .evaluation.similarity import compare_alignments, read_content
    from .generation import MOST_RESULTS
    from .model import CoDi

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
    for name, matrix in matrices.items():
        print(f"{name}:\n{matrix}\n")
    if options.out is not None:
        plain = {name: dataclasses.asdict(matrix) for name, matrix in matrices.items()}
        with replacing(options.out) as folder:
            (folder / "similarity.json").write_text(json.dumps(plain, indent=1) + "\n")
            heat_map(matrices).save(folder / "similarity.png")


def download(options: argparse.Namespace) -> None:
    """`codi download`."""
    require("torch", "numpy", "safetensors", "diffusers")
    from . import download as hub

    def agreed() -> bool:
        if options.yes:
            return True
        if sys.stdin is None or not sys.stdin.isatty():
            raise ValueError("There is nobody to ask whether to go on: agree with --yes.")
        try:
            return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    name = options.edition if options.model == "codi" else f"{options.model}-{options.edition}"
    out = options.out or Path("checkpoints", name)
    for path in hub.download(out, options.edition, options.only, agreed, model=options.model):
        print(path)


def inspect(options: argparse.Namespace) -> int:
    """`codi inspect`."""
    require(*_MODEL)
    from . import inspection

    findings = inspection.inspect(options.files, values=not options.names_only)
    print(findings.to_json() if options.json else findings)
    return 0 if findings.sound else 1


def convert(options: argparse.Namespace) -> None:
    """`codi convert`."""
    check_folder(options.out)
    require(*_MODEL)
    from . import conversion

    dtype = conversion.DTYPES[options.dtype] if options.dtype else None
    for path in conversion.convert(options.files, options.out, dtype, options.only, options.force):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", flush=True)


def _use_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        if threads < 1:
            raise ValueError(f"--threads {threads} computes nothing: choose 1 or more.")
        torch.set_num_threads(threads)
