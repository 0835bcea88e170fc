"""The `codi` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. An error that the user can mend is one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"codi: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("codi: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="codi", description="CoDi: any-to-any generation via composable diffusion.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_dataset(commands)
    _add_train(commands)
    _add_pack(commands)
    _add_evaluate(commands)
    _add_download(commands)
    _add_inspect(commands)
    _add_convert(commands)
    return parser


def _add_generate(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("generate", help="generate outputs together from a prompt")
    p.add_argument("--text", required=True, help='the prompt, as in "three red stars, slowly"; may be empty')
    p.add_argument("--outputs", nargs="+", default=["image", "audio"], metavar="MODALITY", help="image, audio or both")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for the results (default: out)")
    p.add_argument("--count", type=int, default=1, help="number of results (default: 1)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    p.add_argument("--sampler", default="dpmpp_2m", help="dpmpp_2m (default), ddim, euler or ddim_released")
    p.add_argument("--alignment", default="paper", help="who hears whom: paper (default), released or none")
    p.add_argument("--strength", type=float, default=1.0, help="how much the streams hear each other (default: 1)")
    p.add_argument("--model", nargs="+", default=["mini"], help="mini (default) or checkpoint files")
    p.add_argument("--device", default="cpu", help="cpu (default), cuda, mps ...")
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    p.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> None:
    from .generation import generate_to_folder

    generate_to_folder(options)


def _add_dataset(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("dataset", help="look at Shapes & Chimes").add_subparsers(required=True, metavar="COMMAND")
    p = p.add_parser("preview", help="write a contact sheet with pictures, clips, captions and sounds")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--count", type=int, default=24)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--split", default="train", help="train (default), held_out or all")
    p.set_defaults(run=_preview)


def _preview(options: argparse.Namespace) -> None:
    from .data.preview import write_preview

    print(write_preview(options.out, options.count, options.seed, options.split))


def _add_train(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("train", help="train a stage of the small model, or go on where it stopped")
    p.add_argument("stage", help="autoencoder_image, autoencoder_audio, prompts, diffuser_image, diffuser_audio, "
                   "refine_image, alignment_image_audio, or all, in this order")  # fmt: skip
    p.add_argument("--out", type=Path, default=Path("runs/mini"), help="run folder (default: runs/mini)")
    p.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's)")
    p.add_argument("--batch-size", type=int, help="samples a step (default: the recipe's)")
    p.add_argument("--learning-rate", type=float, help="highest learning rate (default: the recipe's)")
    p.add_argument("--seed", type=int, help="seed of weights, data and noise (default: 0)")
    p.add_argument("--threads", type=int, help="CPU threads; one each lets two stages run side by side")
    p.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    import dataclasses

    import torch

    from .training.recipe import OPTIONS, STAGES, run_stage

    if options.threads:
        torch.set_num_threads(options.threads)
    names = ("steps", "batch_size", "learning_rate", "seed")
    changes = {name: value for name in names if (value := getattr(options, name)) is not None}
    for stage in STAGES if options.stage == "all" else (options.stage,):
        chosen = dataclasses.replace(OPTIONS[stage], **changes) if stage in OPTIONS else None
        run_stage(stage, options.out, chosen, lambda line: print(line, flush=True))


def _add_pack(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("pack", help="write a finished run as half-precision checkpoint files")
    p.add_argument("--run", dest="folder", type=Path, default=Path("runs/mini"), help="run folder (default: runs/mini)")
    p.add_argument("--out", type=Path, required=True)
    p.set_defaults(run=_pack)


def _pack(options: argparse.Namespace) -> None:
    from .training.recipe import pack

    for path in pack(options.folder, options.out):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("evaluate", help="measure fidelity and coupling by rule-based judges")
    p.add_argument("--model", nargs="+", default=["mini"], help="mini (default) or checkpoint files")
    p.add_argument("--prompts", type=int, default=48, help="prompts a figure (default: 48)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    p.add_argument("--out", type=Path, help="folder for evaluation.json and evaluation.md")
    p.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from .evaluation.report import evaluate

    print(evaluate(options.model, options.prompts, options.seed, options.steps, options.guidance, options.out))


def _add_download(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("download", help="fetch the published files from the Hugging Face hub (up to 37 GB)")
    p.add_argument("--out", type=Path, help="folder for the files (default: checkpoints/EDITION)")
    p.add_argument("--edition", default="current", help="current (default), fp16 or first")
    p.add_argument("--only", nargs="+", metavar="FILE", help="names of the files, as in CoDi_encoders.pth")
    p.add_argument("--yes", action="store_true", help="do not ask")
    p.set_defaults(run=_download)


def _download(options: argparse.Namespace) -> None:
    from .download import download

    def agreed() -> bool:
        if options.yes:
            return True
        if not sys.stdin.isatty():
            raise ValueError("There is nobody to ask whether to go on: agree with --yes.")
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")

    for path in download(options.out or Path("checkpoints", options.edition), options.edition, options.only, agreed):
        print(path)


def _add_inspect(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("inspect", help="tell what checkpoint files hold and whether it is whole")
    p.add_argument("files", nargs="+", metavar="FILE", help="mini, files of this pack, or published files")
    p.add_argument("--json", action="store_true", help="print the findings as JSON")
    p.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from .inspection import inspect

    findings = inspect(_source(options.files))
    print(findings.to_json() if options.json else findings)
    return 0 if findings.sound else 1


def _add_convert(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("convert", help="write checkpoint files as one .safetensors a part")
    p.add_argument("files", nargs="+", metavar="FILE", help="mini, files of this pack, or published files")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="precision of the weights (default: as stored)")
    p.add_argument("--only", nargs="+", metavar="PART", help="parts to convert, as in diffuser.image (default: all)")
    p.add_argument("--force", action="store_true", help="overwrite files")
    p.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> None:
    from .conversion import DTYPES, convert

    dtype = DTYPES[options.dtype] if options.dtype else None
    for path in convert(_source(options.files), options.out, dtype, options.only, options.force):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", flush=True)


def _source(files: list[str]) -> str | list[str]:
    return "mini" if files == ["mini"] else files
