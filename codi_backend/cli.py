"""The `codi` command."""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from . import commands, console

_CHECKPOINTS = "mini, vd-mini, files of this pack, published files, or a folder of such files"
_MODEL = "mini (default), vd-mini, checkpoint files or their folder"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. An error that the user can mend is one line on stderr."""
    console.any_encoding()
    options = _parser().parse_args(arguments)
    try:
        with console.hints():
            status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        console.say("interrupted")
        return 130
    except BrokenPipeError:
        console.drop_output()
        return 141  # as of a program that the system ends for it
    except Exception as error:
        told = console.sentence(error)
        if told is None:
            raise
        console.say(told)
        return 1


def _file(value: str) -> str:
    if not value or "\0" in value:
        raise argparse.ArgumentTypeError(f"{value!r} is no name of a file")
    return value


def _folder(value: str) -> Path:
    if not value.strip() or any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise argparse.ArgumentTypeError(f"{value!r} is no name of a folder")
    return Path(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="codi", description="CoDi: any-to-any generation via composable diffusion.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(subparsers)
    _add_dataset(subparsers)
    _add_train(subparsers)
    _add_pack(subparsers)
    _add_evaluate(subparsers)
    _add_similarity(subparsers)
    _add_download(subparsers)
    _add_inspect(subparsers)
    _add_convert(subparsers)
    return parser


def _add_generate(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser(
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
    p.add_argument("--out", type=_folder, default=Path("out"), help="folder for the results (default: out)")
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
    p.add_argument("--model", nargs="+", type=_file, default=["mini"], help=_MODEL)
    p.add_argument("--vocabulary", type=_folder, metavar="FOLDER", help="vocab.txt and vocab.json, for published texts")
    p.add_argument("--device", default="cpu", help="cpu (default), cuda, mps ...")
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    p.set_defaults(run=commands.generate)


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
    if name == "text" and any(0xD800 <= ord(character) < 0xE000 for character in value):
        raise argparse.ArgumentTypeError(f"{value!r} is not valid UTF-8")
    if name != "text":
        _file(value)
    content, _, weight = value.rpartition(":")
    whole = content[-1:].isdigit() if name == "text" else os.path.exists(value) or len(content) < 2
    if whole or not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", weight):
        return name, value, 1.0
    return name, content, float(weight)


def _hold(value: str) -> tuple[str, str]:
    name, equals, path = value.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"{value!r} is not MODALITY=FILE, as in video=rain.mp4")
    return name, _file(path)


def _add_dataset(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser("dataset", help="look at Shapes & Chimes").add_subparsers(
        required=True, metavar="COMMAND"
    )
    p = p.add_parser("preview", help="write a contact sheet with pictures, clips, captions and sounds")
    p.add_argument("--out", type=_folder, required=True)
    p.add_argument("--count", type=int, default=24)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--split", default="train", help="train (default), held_out or all")
    p.set_defaults(run=commands.preview)


def _add_train(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser(
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
        "--out",
        type=_folder,
        help="run folder (default: runs/mini; for versatile runs/versatile, with --data runs/own)",
    )
    p.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's; 1000 with --data)")
    p.add_argument("--batch-size", type=int, help="samples a step (default: the recipe's; 16 with --data)")
    p.add_argument("--learning-rate", type=float, help="highest (default: the recipe's; 1e-4 with --data)")
    p.add_argument("--seed", type=int, help="seed of weights, data and noise (default: 0)")
    p.add_argument("--threads", type=int, help="CPU threads; one each lets two stages run side by side")
    own = p.add_argument_group("your own data")
    own.add_argument("--data", type=_file, help="folder of files that share names, with captions as .txt; or a "
                     "manifest .csv, .tsv, .jsonl or .json with text, image, video, audio; or webdataset .tar "
                     "files")  # fmt: skip
    own.add_argument(
        "--init", nargs="+", type=_file, metavar="FILE", help="checkpoint files to start from (default: mini)"
    )
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
    p.set_defaults(run=commands.train)


def _add_pack(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser("pack", help="write a finished run as half-precision checkpoint files")
    p.add_argument(
        "--run", dest="folder", type=_folder, default=Path("runs/mini"), help="run folder (default: runs/mini)"
    )
    p.add_argument("--out", type=_folder, required=True)
    p.set_defaults(run=commands.pack)


def _add_evaluate(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser("evaluate", help="measure fidelity, coupling and synchrony by rule-based judges")
    p.add_argument("--model", nargs="+", type=_file, default=["mini"], help=_MODEL)
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
    p.add_argument("--out", type=_folder, default=Path("evaluation"), help="folder for tables, plots and judged runs, "
                   "which are taken up again (default: evaluation)")  # fmt: skip
    p.set_defaults(run=commands.evaluate)


def _add_similarity(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser("similarity", help="compare the embeddings of prompts and outputs, joint and independent")
    _add_prompts(p)
    p.add_argument("--outputs", nargs="+", metavar="MODALITY", help="what to generate (default: all it can)")
    p.add_argument("--count", type=int, default=1, help="results to average over (default: 1)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, help="sampling steps (default: the model's own)")
    p.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    p.add_argument("--model", nargs="+", type=_file, default=["mini"], help=_MODEL)
    p.add_argument("--out", type=_folder, help="folder for similarity.json and similarity.png")
    p.set_defaults(run=commands.similarity)


def _add_download(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser("download", help="fetch the published files from the Hugging Face hub (up to 37 GB)")
    p.add_argument("--model", default="codi", help="codi (default), or versatile: Versatile Diffusion")
    p.add_argument("--out", type=_folder, help="folder for the files (default: checkpoints/EDITION, or MODEL-EDITION)")
    p.add_argument("--edition", default="current", help="current (default), fp16 or first")
    p.add_argument("--only", nargs="+", metavar="FILE", help="names of the files, as in CoDi_encoders.pth")
    p.add_argument("--yes", action="store_true", help="do not ask")
    p.set_defaults(run=commands.download)


def _add_inspect(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser(
        "inspect", help="tell what checkpoint files hold, whether it is whole, and whether the weights are numbers"
    )
    p.add_argument("files", nargs="+", type=_file, metavar="FILE", help=_CHECKPOINTS)
    p.add_argument("--names-only", action="store_true", help="do not read the weights, which takes long in large files")
    p.add_argument("--json", action="store_true", help="print the findings as JSON")
    p.set_defaults(run=commands.inspect)


def _add_convert(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser("convert", help="write checkpoint files as one .safetensors a part")
    p.add_argument("files", nargs="+", type=_file, metavar="FILE", help=_CHECKPOINTS)
    p.add_argument("--out", type=_folder, required=True)
    p.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="precision of the weights (default: as stored)")
    p.add_argument("--only", nargs="+", metavar="PART", help="parts to convert, as in diffuser.image (default: all)")
    p.add_argument("--force", action="store_true", help="overwrite files")
    p.set_defaults(run=commands.convert)
