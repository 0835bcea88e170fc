"""The `codi` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..media.output_folder import check_folder
from . import console, convert, dataset, download, evaluate, inspect, pack, selfcheck, similarity, train
from .arguments import MODEL, At, add_prompts, file_path, folder_path
from .extras import MODEL_MODULES, TEXT_MODULES, require


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. A user's error is reported as one line on stderr."""
    console.any_encoding()
    # Threads that spin while they wait for each other take the processor from each other where it is shared. PyTorch
    # has not been imported yet, so its OpenMP library will read this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = _parser().parse_args(arguments)
    try:
        with console.hints():
            status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        console.print_line("interrupted")
        return 130
    except BrokenPipeError:
        console.drop_output()
        return 141  # 128 + SIGPIPE, as the shell reports it
    except Exception as error:
        message = console.error_message(error)
        if message is None:
            raise
        console.print_line(message)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="codi", description="CoDi: any-to-any generation via composable diffusion.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(subparsers)
    for command in (dataset, train, pack, evaluate, similarity, download, inspect, convert, selfcheck):
        command.add(subparsers)
    return parser


def _add_generate(subparsers: argparse._SubParsersAction) -> None:
    p = subparsers.add_parser(
        "generate",
        help="generate outputs together from any mix of prompts",
        description="Prompts may be repeated and mixed, each with a weight at its end: --text 'red stars' "
        "--image cat.png:0.3. Without any, the prompt is the empty text. Under `accelerate launch -m codi_backend "
        "generate ...` several processes share the lines of --prompts.",
    )
    add_prompts(p)
    p.add_argument("--prompts", dest="prompt_file", type=file_path, metavar="FILE.jsonl", help="generate for every "
                   "line, a JSON object whose keys are options such as text, hold, outputs and seed; what is finished "
                   "in --out is kept")  # fmt: skip
    p.add_argument("--at", dest="starts", action=At, default=[], type=float, metavar="SECONDS", help="the prompts that "
                   "follow start here: --text 'two red stars' --at 5 --text 'one blue circle' changes a clip's "
                   "prompt at 5 s")  # fmt: skip
    p.add_argument("--interpolation", default="linear", help="how prompts are mixed: linear (default) or slerp")
    p.add_argument(
        "--hold",
        dest="held",
        action="append",
        default=[],
        type=_hold,
        metavar="MODALITY=FILE[@START]",
        help="a given stream that the others attend to, as in video=rain.mp4; repeatable. Of a "
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
    p.add_argument("--focus", type=float, default=0.5, help="of images as prompts, for Versatile Diffusion: from 0, "
                   "what they mean, to 1, what style they have (default: 0.5, all)")  # fmt: skip
    p.add_argument("--fidelity", type=float, default=0.0, help="how much stays of the first image among the prompts: "
                   "0 (default) to 1, that image; with the weight 0 it is no prompt")  # fmt: skip
    p.add_argument("--image-size", type=int, metavar="PIXELS", help="of images and videos (default: the model's own)")
    p.add_argument(
        "--frames", type=int, help="length of videos and audio, in frames of a video (default: the model's own)"
    )
    p.add_argument("--seconds", type=float, help="length of videos and audio, instead of --frames; rounded up to whole "
                   "frames and to the steps of the model's audio")  # fmt: skip
    p.add_argument("--window", type=float, metavar="SECONDS", help="longer clips are denoised in windows of this "
                   "length (default: the length of the model's training; inf: up to 120 frames at once)")  # fmt: skip
    p.add_argument("--overlap", type=float, metavar="SECONDS", help="of two windows (default: a quarter of a window)")
    p.add_argument("--out", type=folder_path, default=Path("out"), help="folder for the results (default: out)")
    p.add_argument("--count", type=int, default=1, help="number of results (default: 1)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, help="sampling steps (default: the model's own)")
    p.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    p.add_argument("--sampler", help="dpmpp_2m, dpmpp_2m_sde, ddim, euler or ddim_released (default: the model's own)")
    p.add_argument("--alignment", default="paper", help="what streams attend to: paper (default; each other), "
                   "released (themselves) or none")  # fmt: skip
    p.add_argument(
        "--strength", type=float, default=1.0, help="strength of the connectors between streams (default: 1)"
    )
    p.add_argument("--alignment-scale", type=float, help="modality guidance scale, a multiple of the guidance scale "
                   "(default: the model's own)")  # fmt: skip
    p.add_argument("--candidates", type=int, help="best-of-N: number of candidates per result, of which the one is "
                   "kept whose streams agree best (default: the model's own, or 1 for a single output)")  # fmt: skip
    p.add_argument("--model", nargs="+", type=file_path, default=["mini"], help=MODEL)
    p.add_argument(
        "--vocabulary", type=folder_path, metavar="FOLDER", help="vocab.txt and vocab.json, for published texts"
    )
    p.add_argument("--device", default="cpu", help="cpu (default), cuda, mps ...")
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    p.set_defaults(run=_generate)


def _hold(value: str) -> tuple[str, str]:
    name, equals, path = value.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"{value!r} is not MODALITY=FILE, as in video=rain.mp4")
    return name, file_path(path)


def _generate(options: argparse.Namespace) -> int:
    check_folder(options.out)
    files = {name for name, *_ in (*(options.prompts or ()), *options.held)} | {*(options.outputs or ())}
    require(*MODEL_MODULES, "tqdm", *TEXT_MODULES, *(("av",) if files & {"video", "audio"} else ()))
    from ..processes import launched
    from .devices import check_device
    from .generate import generate_to_folder
    from .many import generate_lines

    check_device(options.device)
    processes = launched()
    if options.prompt_file is not None:
        options.device = processes.device(options.device)
        return generate_lines(options, processes)
    if processes.count > 1:
        raise ValueError("Several processes share the lines of a file: give one with --prompts, or start one process.")
    generate_to_folder(options)
    return 0
