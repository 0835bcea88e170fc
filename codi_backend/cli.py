"""The `codi` command."""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

_CHECKPOINTS = "mini, vd-mini, files of this pack, published files, or a folder of such files"


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
    _add_similarity(commands)
    _add_download(commands)
    _add_inspect(commands)
    _add_convert(commands)
    return parser


def _add_generate(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser(
        "generate",
        help="generate outputs together from any mix of prompts",
        description="Prompts may be repeated and mixed, each with a weight at its end: --text 'red stars' "
        "--image cat.png:0.3. Without any, the prompt is the empty text.",
    )
    _add_prompts(p)
    p.add_argument("--interpolation", default="linear", help="how prompts are mixed: linear (default) or slerp")
    p.add_argument(
        "--hold",
        dest="held",
        action="append",
        default=[],
        type=_hold,
        metavar="MODALITY=FILE[@START]",
        help="a stream that the others hear and that stays as the file is, as in video=rain.mp4; repeatable. Of a "
        "longer file as much as is generated is held, from START on, in seconds. A video that is held while audio is "
        "generated is also written whole with that audio",
    )
    p.add_argument("--keep-sound", action="store_true", help="in that film, mix its own audio with the new")
    p.add_argument("--audio-track", type=int, metavar="N", help="of files with several audio tracks, which one is "
                   "read, from 1 (default: the one that players choose)")  # fmt: skip
    p.add_argument(
        "--outputs",
        nargs="+",
        metavar="MODALITY",
        help="any of text, image, video and audio (default: those of image and audio that the model makes)",
    )
    p.add_argument("--focus", type=float, default=0.5, help="of pictures as prompts, for Versatile Diffusion: from 0, "
                   "what they mean, to 1, what style they have (default: 0.5, all)")  # fmt: skip
    p.add_argument("--fidelity", type=float, default=0.0, help="how much stays of the first picture among the prompts: "
                   "0 (default) to 1, that picture; with the weight 0 it is no prompt")  # fmt: skip
    p.add_argument("--image-size", type=int, metavar="PIXELS", help="of pictures and videos (default: the model's own)")
    p.add_argument(
        "--frames", type=int, help="length of videos and audio, in frames of a video (default: the model's own)"
    )
    p.add_argument("--seconds", type=float, help="length of videos and audio, instead of --frames; rounded up to whole "
                   "frames and to the steps of the model's audio")  # fmt: skip
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for the results (default: out)")
    p.add_argument("--count", type=int, default=1, help="number of results (default: 1)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, help="sampling steps (default: the model's own)")
    p.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    p.add_argument("--sampler", help="dpmpp_2m, dpmpp_2m_sde, ddim, euler or ddim_released (default: the model's own)")
    p.add_argument("--alignment", default="paper", help="who hears whom: paper (default), released or none")
    p.add_argument("--strength", type=float, default=1.0, help="how much the streams hear each other (default: 1)")
    p.add_argument("--alignment-scale", type=float, help="how far what they hear leads them, as a multiple of the "
                   "guidance (default: the model's own)")  # fmt: skip
    p.add_argument("--candidates", type=int, help="of how many candidates each result is the one whose streams agree "
                   "best (default: the model's own, or 1 for a single output)")  # fmt: skip
    p.add_argument(
        "--model", nargs="+", default=["mini"], help="mini (default), vd-mini, checkpoint files or their folder"
    )
    p.add_argument("--vocabulary", type=Path, metavar="FOLDER", help="vocab.txt and vocab.json, for published texts")
    p.add_argument("--device", default="cpu", help="cpu (default), cuda, mps ...")
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    p.set_defaults(run=_generate)


def _add_prompts(p: argparse.ArgumentParser) -> None:
    for name, told in _PROMPTS.items():
        p.add_argument(
            f"--{name}",
            dest="prompts",
            action="append",
            type=functools.partial(_prompt, name),
            metavar=_METAVARS.get(name, "FILE[@START][:WEIGHT]"),
            help=told,
        )


_PROMPTS = {
    "text": 'a prompt, as in "three red stars, slowly"; may be empty',
    "image": "a picture as a prompt",
    "video": "a video as a prompt, without its audio; frames spread over it from START (in seconds) on are looked at",
    "audio": "audio as a prompt, or that of a video; of long audio its middle, or what begins at START",
}
_METAVARS = {"text": "TEXT[:WEIGHT]", "image": "FILE[:WEIGHT]"}


def _prompt(name: str, value: str) -> tuple[str, str, float]:
    """Split a prompt's weight from its end; 1 for a text with a time or a ratio there, or a file that is so called."""
    content, _, weight = value.rpartition(":")
    whole = content[-1:].isdigit() if name == "text" else os.path.exists(value) or len(content) < 2
    if whole or not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", weight):
        return name, value, 1.0
    return name, content, float(weight)


def _hold(value: str) -> tuple[str, str]:
    name, equals, path = value.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"{value!r} is not MODALITY=FILE, as in video=rain.mp4")
    return name, path


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
    p = commands.add_parser(
        "train",
        help="train a stage of the small model, or any model's on your own data; or go on where it stopped",
        description="Without --data, a stage of the small model on Shapes & Chimes. With --data, a stage of the model "
        "that --init names, on your own data. Under `accelerate launch -m codi_backend train ...` several processes "
        "share every batch.",
    )
    p.add_argument(
        "stage",
        help="as in diffuser_image, or all of the small CoDi, in order; or "
        "versatile: the small Versatile Diffusion; an unknown name lists them",
    )
    p.add_argument(
        "--out", type=Path, help="run folder (default: runs/mini; runs/versatile for versatile, runs/own with --data)"
    )
    p.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's; 1000 with --data)")
    p.add_argument("--batch-size", type=int, help="samples a step (default: the recipe's; 16 with --data)")
    p.add_argument("--learning-rate", type=float, help="highest (default: the recipe's; 1e-4 with --data)")
    p.add_argument("--seed", type=int, help="seed of weights, data and noise (default: 0)")
    p.add_argument("--threads", type=int, help="CPU threads; one each lets two stages run side by side")
    own = p.add_argument_group("your own data")
    own.add_argument("--data", help="folder of files that share names, with captions as .txt; or a manifest .csv, "
                     ".tsv, .jsonl or .json with text, image, video, audio; or webdataset .tar files")  # fmt: skip
    own.add_argument("--init", nargs="+", metavar="FILE", help="checkpoint files to start from (default: mini)")
    own.add_argument("--streams", nargs=2, metavar="MODALITY", help="the pair that alignment trains, as in image audio")
    own.add_argument("--skip-broken", action="store_true", help="leave out entries that cannot be used, and list them "
                     "in left_out.txt in the run folder")  # fmt: skip
    machine = p.add_argument_group("machine")
    machine.add_argument("--precision", choices=("no", "bf16", "fp16"), help="mixed precision (default: no)")
    machine.add_argument("--micro-batches", type=int, default=1, help="parts to take a batch in, to save memory")
    machine.add_argument("--checkpointing", action="store_true", help="compute activations twice, to save memory")
    machine.add_argument("--workers", type=int, default=0, help="processes that prepare data (default: 0)")
    machine.add_argument(
        "--sample-every", type=int, default=1000, help="steps between samples; 0: none (default: 1000)"
    )
    p.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    import dataclasses

    import torch

    from .training.execution import Execution

    if options.threads:
        torch.set_num_threads(options.threads)
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

    usual = Path("runs/versatile" if options.stage in VERSATILE else "runs/mini")

    for stage in STAGES if options.stage == "all" else (options.stage,):
        recipe = dataclasses.replace(OPTIONS[stage], **changes) if stage in OPTIONS else None
        run_stage(stage, options.out or usual, recipe, report, execution)


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
    p = commands.add_parser("evaluate", help="measure fidelity, coupling and synchrony by rule-based judges")
    p.add_argument(
        "--model", nargs="+", default=["mini"], help="mini (default), vd-mini, checkpoint files or their folder"
    )
    p.add_argument("--samples", type=int, default=200, help="results behind each figure (default: 200)")
    p.add_argument("--clips", type=int, help="the same where it takes videos, which are slow (default: as --samples)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, help="sampling steps (default: the model's own)")
    p.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    p.add_argument("--candidates", type=int, help="of how many candidates each result is the one whose streams agree "
                   "best, where they hear each other (default: the model's own)")  # fmt: skip
    p.add_argument("--runs", nargs="+", metavar="RUN", help="do these runs only; another process may do the others")
    p.add_argument("--extend", type=Path, metavar="REPORT", help="the evaluation.json of an earlier evaluation, on any "
                   "machine: make what it lacks, and let the figures be of all")  # fmt: skip
    p.add_argument("--device", default="cpu", help="cpu (default), cuda, mps ...")
    p.add_argument("--threads", type=int, help="CPU threads; one each lets two processes share the runs")
    p.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for the tables, plots and judged runs, "
                   "which are taken up again (default: evaluation)")  # fmt: skip
    p.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from .devices import place
    from .evaluation.evaluate import evaluate
    from .model import CoDi

    if options.threads:
        torch.set_num_threads(options.threads)
    settings = (options.samples, options.clips, options.seed, options.steps, options.guidance)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    codi = place(CoDi.load(options.model), options.device)
    print(evaluate(codi, options.out, *settings, options.candidates, options.runs, options.extend, say))


def _add_similarity(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("similarity", help="compare the embeddings of prompts and outputs, joint and independent")
    _add_prompts(p)
    p.add_argument("--outputs", nargs="+", metavar="MODALITY", help="what to generate (default: all it can)")
    p.add_argument("--count", type=int, default=1, help="results to average over (default: 1)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, help="sampling steps (default: the model's own)")
    p.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    p.add_argument(
        "--model", nargs="+", default=["mini"], help="mini (default), vd-mini, checkpoint files or their folder"
    )
    p.add_argument("--out", type=Path, help="folder for similarity.json and similarity.png")
    p.set_defaults(run=_similarity)


def _similarity(options: argparse.Namespace) -> None:
    import dataclasses
    import json

    from .evaluation.heat_map import heat_map
    from .evaluation.similarity import compare_alignments, read_content
    from .model import CoDi

    codi = CoDi.load(options.model)
    prompts = options.prompts or [("text", "", 1.0)]
    matrices = compare_alignments(
        codi,
        [(name, read_content(codi, name, value), weight) for name, value, weight in prompts],
        options.outputs or codi.outputs,
        options.count,
        seed=options.seed,
        steps=options.steps,
        guidance=options.guidance,
    )
    for name, matrix in matrices.items():
        print(f"{name}:\n{matrix}\n")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        plain = {name: dataclasses.asdict(matrix) for name, matrix in matrices.items()}
        (options.out / "similarity.json").write_text(json.dumps(plain, indent=1) + "\n")
        heat_map(matrices).save(options.out / "similarity.png")


def _add_download(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("download", help="fetch the published files from the Hugging Face hub (up to 37 GB)")
    p.add_argument("--model", default="codi", help="codi (default), or versatile: Versatile Diffusion")
    p.add_argument("--out", type=Path, help="folder for the files (default: checkpoints/EDITION, or MODEL-EDITION)")
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

    name = options.edition if options.model == "codi" else f"{options.model}-{options.edition}"
    out = options.out or Path("checkpoints", name)
    for path in download(out, options.edition, options.only, agreed, model=options.model):
        print(path)


def _add_inspect(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser(
        "inspect", help="tell what checkpoint files hold, whether it is whole, and whether the weights are numbers"
    )
    p.add_argument("files", nargs="+", metavar="FILE", help=_CHECKPOINTS)
    p.add_argument("--names-only", action="store_true", help="do not read the weights, which takes long in large files")
    p.add_argument("--json", action="store_true", help="print the findings as JSON")
    p.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from .inspection import inspect

    findings = inspect(options.files, values=not options.names_only)
    print(findings.to_json() if options.json else findings)
    return 0 if findings.sound else 1


def _add_convert(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("convert", help="write checkpoint files as one .safetensors a part")
    p.add_argument("files", nargs="+", metavar="FILE", help=_CHECKPOINTS)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="precision of the weights (default: as stored)")
    p.add_argument("--only", nargs="+", metavar="PART", help="parts to convert, as in diffuser.image (default: all)")
    p.add_argument("--force", action="store_true", help="overwrite files")
    p.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> None:
    from .conversion import DTYPES, convert

    dtype = DTYPES[options.dtype] if options.dtype else None
    for path in convert(options.files, options.out, dtype, options.only, options.force):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", flush=True)
