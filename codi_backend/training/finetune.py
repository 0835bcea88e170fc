"""Training a stage on a user's data, from given checkpoint files: `codi train STAGE --data PATH --init FILES`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoints.native import Source, read_parts, save_parts
from ..checkpoints.quantisation import quantised_layers
from ..data.broken import Broken
from ..data.checks import check_entries, read_all
from ..data.pairs import Pairs
from ..modalities import modality
from ..pipeline import CoDi
from .alignment import AlignmentStage
from .autoencoders import AutoencoderStage
from .bridging import BridgingStage
from .diffusers import DiffuserStage
from .execution import Execution
from .identity import data_digest, weights_digest
from .loop import Options, Stage, train
from .own_data import OwnData
from .pair_latents import PairLatents
from .state import check_identity
from .vocoder import VocoderStage

if TYPE_CHECKING:
    from accelerate import Accelerator

OPTIONS = Options(steps=1000, batch_size=16, learning_rate=1e-4, warmup=100, save_every=250)
STAGES = (
    "alignment",
    "diffuser_image",
    "diffuser_video",
    "diffuser_audio",
    "bridging_image",
    "bridging_video",
    "bridging_audio",
    "autoencoder_image",
    "autoencoder_audio",
    "vocoder",
)


@dataclass(frozen=True)
class _Plan:
    """What a stage reads (modalities of the data, parts of the model), the parts that it trains, and its run's name."""

    modalities: tuple[str, ...]
    parts: tuple[str, ...]
    trained: tuple[str, ...]
    name: str


def finetune(
    stage: str,
    data: Path,
    out: Path,
    init: Source = "mini",
    streams: Sequence[str] = (),
    options: Options = OPTIONS,
    report: Callable[[str], None] = print,
    execution: Execution | None = None,
    skip_broken: bool = False,
) -> list[Path]:
    """Train one stage on a user's data, or go on where it stopped.

    Parameters
    ----------
    stage : str
        One of `STAGES`.
    data : Path
        See `find_entries`.
    out : Path
        Run folder: the state and curves of the stage, the data's latents, and what was trained.
    init : str, path or iterable of paths
        The checkpoint to start from, as for `CoDi.load`.
    streams : pair of str
        For alignment, the pair of streams to align.
    skip_broken : bool
        Leave out entries that cannot be used: without a caption, in faulty rows of a manifest, or with files that are
        missing or unreadable. ``left_out.txt`` beside the stage's state lists them with the reasons. By default they
        are refused.

    Returns
    -------
    list of Path
        Files ``<name of the configuration>_<part>.safetensors`` of the parts that were trained, in single precision and
        with the training record. They take the place of the files that `codi convert` makes of the same checkpoint.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence about what is wrong with the arguments, the data or the checkpoint, or about an earlier run in
        `out` that had other data or began with another checkpoint.
    """
    execution = execution or Execution()
    plan = _plan(stage, tuple(streams))
    whole = read_parts(init)
    accelerator = execution.accelerator()
    report_once = report if accelerator.is_main_process else _silent
    broken = Broken(skip_broken)
    pairs = check_entries(Pairs.find(data, whole.config, plan.modalities, report_once, broken), report_once, broken)
    torch.manual_seed(options.seed)
    codi = CoDi.load(init, only=plan.parts)
    unaligned = [
        part for part in plan.trained if stage == "alignment" and codi.parts()[part].environment_encoder is None
    ]
    if unaligned:
        raise ValueError(
            f"{' and '.join(unaligned)} of these files have no connectors to train: take the current edition."
        )
    if quantised := [part for part in plan.trained if quantised_layers(codi.parts()[part].state_dict())]:
        raise ValueError(
            f"{' and '.join(quantised)} of these files is quantised, and quantised weights are not trained: convert "
            "the files with codi convert --dtype fp16 first."
        )
    folder = out / plan.name
    weights = weights_digest(codi.parts()[part] for part in plan.parts)
    identity = {"stage": plan.name, "data": data_digest(pairs), "init": weights}
    if not check_identity(folder / "state.pt", identity):
        report_once(
            f"{folder} is the run of an older edition, which did not record data and checkpoint: they are taken to be "
            "the same."
        )
    codi.to(accelerator.device)
    if stage == "alignment" or stage.startswith("diffuser"):
        # The first process reads and encodes, the others load its result.
        with accelerator.main_process_first():
            latents = PairLatents.load_or_encode(
                out, codi, pairs, workers=execution.workers, report=report, broken=broken
            )
        entries = len(latents)
        learner: Stage = _on_latents(stage, codi, latents, pairs)
    else:
        pairs = pairs.at(_readable(pairs, accelerator, execution.workers, broken))
        entries = len(pairs)
        learner = _on_contents(stage, codi, pairs)
    if accelerator.is_main_process:
        _report_left_out(broken, folder / "left_out.txt", report)
    record = train(learner, options, out, report, execution, identity)
    record |= {"data": str(data), "entries": entries, "left_out": len(broken.faults)}
    paths = [out / f"{whole.config.name}_{part}.safetensors" for part in plan.trained]
    if accelerator.is_main_process:
        for part, path in zip(plan.trained, paths):
            before = [r for r in whole.training if r.get("stage") != learner.name]
            save_parts(path, whole.config, {part: codi.parts()[part].state_dict()}, [*before, record])
            report(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    accelerator.wait_for_everyone()
    return paths


def _plan(stage: str, streams: tuple[str, ...]) -> _Plan:
    if stage not in STAGES:
        raise ValueError(f"There is no stage {stage!r} on your own data; choose from {', '.join(STAGES)}.")
    if stage == "alignment":
        if len(set(streams)) != 2:
            raise ValueError("Latent alignment is between two streams: name both, as in --streams image audio.")
    elif streams:
        raise ValueError(f"The stage {stage} has no streams to choose: --streams belongs to alignment.")
    kind, _, name = stage.partition("_")
    if kind in ("alignment", "diffuser"):
        streams = streams or (name,)
        if "text" in streams:
            raise ValueError("Text is the prompt of your own data, not a stream: choose from image, video, audio.")
        networks = tuple(dict.fromkeys(modality(m).network for m in streams))
        trained = tuple(f"diffuser.{network}" for network in networks)
        parts = (*trained, *(f"autoencoders.{network}" for network in networks), "prompt_encoders.text")
        name = "_".join(("alignment", *streams)) if kind == "alignment" else f"refine_{name}"
        return _Plan((*streams, "text"), parts, trained, name)
    if kind == "bridging":
        trained = (f"prompt_encoders.{modality(name).network}",)
        return _Plan((name, "text"), (*trained, "prompt_encoders.text"), trained, stage)
    name = "audio" if kind == "vocoder" else name
    return _Plan((name,), (f"autoencoders.{name}",), (f"autoencoders.{name}",), stage)


def _on_latents(stage: str, codi: CoDi, latents: PairLatents, pairs: Pairs) -> Stage:
    text_encoder = codi.prompt_encoders["text"]
    *streams, _ = pairs.modalities
    if stage == "alignment":
        return AlignmentStage(codi.diffuser, text_encoder, latents, tuple(streams))
    return DiffuserStage(codi.diffuser, text_encoder, latents, streams[0], refine=True)


def _on_contents(stage: str, codi: CoDi, pairs: Pairs) -> Stage:
    kind, _, name = stage.partition("_")
    data = OwnData(pairs)
    if kind == "bridging":
        return BridgingStage(codi, name, data, refine=True)
    if kind == "vocoder":
        return VocoderStage(codi.autoencoders["audio"], data)
    learner = AutoencoderStage(codi.config, name, data)
    learner.autoencoder.load_state_dict(codi.autoencoders[name].state_dict())
    codi.autoencoders[name] = learner.autoencoder
    return learner


def _readable(pairs: Pairs, accelerator: Accelerator, workers: int, broken: Broken) -> list[int]:
    """The rows that can be read; the first process reads them all and sends the result to the others."""
    from accelerate.utils import broadcast_object_list

    found: list[Any] = [None]
    if accelerator.is_main_process:
        before = len(broken.faults)
        try:
            rows = list(read_all(pairs, workers, broken, functools.partial(_read, pairs)))
            found = [(rows, broken.faults[before:], None)]
        except ValueError as error:
            found = [([], [], str(error))]
    rows, faults, error = broadcast_object_list(found)[0]
    if error:
        raise ValueError(error)
    if not accelerator.is_main_process:
        broken.faults += faults
    return rows


def _read(pairs: Pairs, row: int) -> int:
    """A row, if it can be read."""
    _ = pairs[row]
    return row


def _report_left_out(broken: Broken, path: Path, report: Callable[[str], None]) -> None:
    broken.write(path)
    if broken.faults:
        report(f"{len(broken.faults)} entries cannot be used and are left out; {path} lists them. {broken.reasons()}")


def _silent(line: str) -> None:
    pass
