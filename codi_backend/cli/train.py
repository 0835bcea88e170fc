"""`codi train`: train a stage of a model, or go on where it stopped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..media.output_folder import check_folder
from .arguments import file_path, folder_path, use_threads
from .extras import MODEL_MODULES, TEXT_MODULES, require


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "train",
        help="train a stage of the small model, or of any model on your own data; or continue it",
        description="Without --data, a stage of the small model on Shapes & Chimes. With --data, a stage of the model "
        "that --init names, on your own data; with --data and --config, a stage of a new model. Under `accelerate "
        "launch -m codi_backend train ...` several processes share every batch.",
    )
    p.add_argument(
        "stage",
        help="a stage such as diffuser_image; or all: every stage of the small CoDi, in order; or "
        "versatile: the small Versatile Diffusion; or coupler: see docs/coupling.md; an unknown name lists them",
    )
    p.add_argument(
        "--out",
        type=folder_path,
        help="run folder (default: runs/mini; for versatile and coupler runs/<stage>, with --data runs/own, with "
        "--config runs/<name of the model>)",
    )
    p.add_argument("--steps", type=int, help="optimizer steps of every phase (default: the recipe's; 1000 with --data)")
    p.add_argument("--batch-size", type=int, help="samples a step (default: the recipe's, for a GPU; 16 with --data)")
    p.add_argument("--learning-rate", type=float, help="highest (default: the recipe's; 1e-4 with --data)")
    p.add_argument("--seed", type=int, help="seed of weights, data and noise (default: 0)")
    p.add_argument("--threads", type=int, help="CPU threads; one each lets two stages run side by side")
    own = p.add_argument_group("your own data")
    own.add_argument("--data", type=file_path, help="folder of files that share names, with captions as .txt; or a "
                     "manifest .csv, .tsv, .jsonl or .json with text, image, video, audio; or webdataset .tar "
                     "files")  # fmt: skip
    own.add_argument("--config", type=file_path, metavar="FILE", help="configuration of a new model, which is trained "
                     "from nothing on the data, stage by stage or by the stage all: see docs/training.md")  # fmt: skip
    own.add_argument(
        "--init", nargs="+", type=file_path, metavar="FILE", help="checkpoint files to start from (default: mini)"
    )
    own.add_argument("--streams", nargs="+", metavar="MODALITY", help="the pair that alignment trains, or the streams "
                     "of a coupler, as in image audio")  # fmt: skip
    own.add_argument("--pairs", type=folder_path, metavar="FOLDER", help="for coupler: a folder with a subfolder of "
                     "saved latents for each stream, files of equal names being pairs; or data as for "
                     "--data")  # fmt: skip
    own.add_argument("--axes", nargs="+", default=[], type=_axes, metavar="STREAM=AXES", help="of saved latents: the "
                     "axes after the channels if they are others than T, HW or THW, as in audio=FT")  # fmt: skip
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
    p.set_defaults(run=run)


def _axes(value: str) -> tuple[str, str]:
    name, equals, axes = value.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{value!r} is not STREAM=AXES, as in audio=FT")
    return name, axes.upper()


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    require(*MODEL_MODULES, *TEXT_MODULES, "accelerate", "tensorboard", "matplotlib")
    import dataclasses

    from ..training.execution import Execution

    use_threads(options.threads)
    names = ("steps", "batch_size", "learning_rate", "seed")
    changes = {name: value for name in names if (value := getattr(options, name)) is not None}
    execution = Execution(
        options.precision, options.micro_batches, options.checkpointing, options.workers, options.sample_every
    )

    def report(line: str) -> None:
        print(line, flush=True)

    if options.stage == "coupler":
        if options.data or options.skip_broken:
            raise ValueError("--data and --skip-broken are for other stages: give --pairs.")
        from ..training import train_coupler

        out = options.out or Path("runs/coupler")
        check_folder(out)
        chosen = dataclasses.replace(train_coupler.OPTIONS, **changes)
        given = options.init or "mini", options.streams or (), dict(options.axes)
        train_coupler.train_coupler(options.pairs, out, *given, chosen, report, execution)
        return
    if options.pairs or options.axes:
        raise ValueError("--pairs and --axes are for the stage coupler: give --data.")
    if options.config:
        if options.data is None or options.init or options.streams:
            raise ValueError("--config is for a new model: give --data with it, and neither --init nor --streams.")
        _train_new(options, changes, report, execution)
        return
    if options.data is not None:
        if options.stage == "all":
            raise ValueError("All stages on your own data make a new model: give its configuration with --config.")
        from ..training import finetune

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

    from ..training.recipe import STAGES, VERSATILE
    from ..training.run import run_stage

    out = options.out or Path("runs/versatile" if options.stage == VERSATILE else "runs/mini")
    check_folder(out)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        run_stage(stage, out, changes, report, execution)


def _train_new(options: argparse.Namespace, changes: dict[str, Any], report, execution) -> None:
    from ..training.new_model import Settings, begin
    from ..training.recipe import STAGES, phases
    from ..training.run import run_stage

    settings = Settings.read(Path(options.config))
    stages = STAGES if options.stage == "all" else (options.stage,)
    for stage in stages:
        phases(stage)  # exists
    out = options.out or Path("runs") / settings.configure(()).name
    check_folder(out)
    data = begin(settings, Path(options.data), out, report, execution, options.skip_broken)
    for stage in stages:
        run_stage(stage, out, changes, report, execution, data, settings.training)
