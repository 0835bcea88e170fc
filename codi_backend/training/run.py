"""Running stages of the recipe in a run folder: `codi train STAGE`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints.native import read_parts, save_parts
from ..modalities import modality
from ..pipeline import CoDi
from . import recipe
from .alignment import AlignmentStage
from .autoencoders import AutoencoderStage
from .bridging import BridgingStage
from .diffusers import DiffuserStage, Latents
from .distillation import DistillationStage
from .environment import EnvironmentStage
from .execution import Execution
from .loop import Options, Stage, train
from .recipe import Changes, Phase
from .run_folder import load_part, load_parts, read_config, write_config
from .samples import write_samples
from .scenes import SHAPES_AND_CHIMES
from .statistics import with_statistics
from .text_autoencoder import TextAutoencoderStage
from .text_encoder import TextEncoderStage
from .training_data import TrainingData
from .versatile import TURNS, VersatileStage, start_from
from .versatile_run import begin_versatile, shared_parts
from .versatile_scenes import VersatileScenes
from .vocoder import VocoderStage

_Trained = dict[str, nn.Module]


def run_stage(
    stage: str,
    out: Path,
    changes: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = print,
    execution: Execution | None = None,
    data: TrainingData = SHAPES_AND_CHIMES,
    recipe_changes: Changes | None = None,
) -> None:
    """Train all phases of a stage of the recipe in the run folder `out`, or go on where they stopped.

    Every phase writes its state and curves into ``out/<stage>`` or ``out/<stage>/<phase>``, and the parts that it
    trains into ``out/parts``, each with one more training record. A finished phase is left as it is: later stages may
    have trained its parts further.

    Parameters
    ----------
    stage : str
        A key of `RECIPE`.
    out : Path
        The stages before this one must have been trained there.
    changes : mapping, optional
        Options that replace those of every phase.
    data : TrainingData
        By default Shapes & Chimes.
    recipe_changes : Changes, optional
        What differs from the recipe.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such stage, or an earlier one has not been trained.
    """
    for name, phase in recipe.phases(stage).items():
        of_config = recipe_changes or {}
        changed = phase.changed({**of_config.get(stage, {}), **of_config.get(name, {}), **(changes or {})})
        of_model = changed.of(read_config(out))
        if of_model is None:
            report(f"{name} is left out: the model has no such part.")
            continue
        _run_phase(name, of_model, out, report, execution or Execution(), data)


def _run_phase(
    name: str, phase: Phase, out: Path, report: Callable[[str], None], execution: Execution, data: TrainingData
) -> None:
    options = phase.options
    out.mkdir(parents=True, exist_ok=True)
    (out / "parts").mkdir(exist_ok=True)
    if phase.training == "versatile":
        begin_versatile(out)
    torch.manual_seed(options.seed)
    accelerator = execution.accelerator()
    with accelerator.main_process_first():  # it encodes the scenes, the others read them
        stage, parts = _build(phase, out, report, execution.workers, accelerator.device, data)
    stage.name = name
    if all(_has_record(out / "parts" / f"{part}.safetensors", name, options) for part in parts):
        report(f"{name} is finished; remove {out / name} and what it wrote in {out / 'parts'} to train it again.")
        return
    if phase.training == "diffuser" and (out / name / "state.pt").exists():
        for part, module in parts.items():  # later stages may have trained other parameters of the network
            if (out / "parts" / f"{part}.safetensors").exists():
                load_part(module, out, part)
    record = train(stage, options, out, report, execution)
    if accelerator.is_main_process:
        config = read_config(out)
        if phase.training == "autoencoder":
            config = with_statistics(config, phase.streams[0], stage.autoencoder.eval(), data)
            write_config(out, config)
        for part, module in parts.items():
            path = out / "parts" / f"{part}.safetensors"
            earlier = [r for r in read_parts(path).training if r["stage"] != name] if path.exists() else []
            save_parts(path, config, {part: module.state_dict()}, [*earlier, record])
    accelerator.wait_for_everyone()


def _has_record(path: Path, name: str, options: Options) -> bool:
    """Whether a part was trained by this phase with these options; those that a record lacks had their defaults."""
    if not path.exists():
        return False
    usual = {f.name: f.default for f in dataclasses.fields(Options) if f.default is not dataclasses.MISSING}
    recorded = [usual | record["options"] for record in read_parts(path).training if record["stage"] == name]
    return any(all(known[key] == value for key, value in vars(options).items()) for known in recorded)


def _build(
    phase: Phase,
    out: Path,
    report: Callable[[str], None],
    workers: int,
    device: torch.device,
    data: TrainingData,
) -> tuple[Stage, _Trained]:
    """The stage, and the parts that it trains by name."""
    config = read_config(out)
    first = phase.streams[0]
    if phase.training == "autoencoder":
        text = first == "text"
        stage: Stage = TextAutoencoderStage(config, data) if text else AutoencoderStage(config, first, data)
        return stage, {f"autoencoders.{first}": stage.autoencoder}
    codi = CoDi(config).to(device)
    parts = codi.parts()
    if phase.training == "versatile":
        return _build_versatile(phase, codi, out, report)
    if phase.training == "vocoder":
        load_parts(codi, out, "autoencoders.audio")
        return VocoderStage(codi.autoencoders["audio"], data), {"autoencoders.audio": codi.autoencoders["audio"]}
    encode = functools.partial(data.latents, out, codi, report=report, workers=workers)
    if phase.training == "text_encoder":
        load_parts(codi, out, *(f"autoencoders.{name}" for name in phase.streams))
        stage = TextEncoderStage(config, encode(phase.streams, ()), phase.streams)
        return stage, {"prompt_encoders.text": stage.text_encoder}
    if phase.training == "bridging":
        part = f"prompt_encoders.{modality(first).network}"
        load_parts(codi, out, "prompt_encoders.text", *([part] if first == "video" else []))
        return BridgingStage(codi, first, data), {part: parts[part]}
    return _build_diffusion(phase, codi, out, encode, data)


def _build_diffusion(
    phase: Phase, codi: CoDi, out: Path, encode: Callable[..., Latents], data: TrainingData
) -> tuple[Stage, _Trained]:
    first, training = phase.streams[0], phase.training
    pairs = (phase.streams, *phase.other_pairs)
    replayed = ("image",) if training == "diffuser" and first == "video" else ()
    streams = tuple(dict.fromkeys([*(name for pair in pairs for name in pair), *replayed]))
    networks = {modality(name).network for name in streams}
    load_parts(codi, out, *(f"autoencoders.{network}" for network in networks))
    load_parts(codi, out, *(f"prompt_encoders.{modality(name).network}" for name in {"text", *phase.prompts}))
    if training != "diffuser" or first == "video":
        load_parts(codi, out, *(f"diffuser.{network}" for network in networks))
    common = codi.diffuser, codi.prompt_encoders["text"], encode(streams, phase.prompts)
    if training == "environment":
        stage: Stage = EnvironmentStage(*common, phase.streams)
    elif training == "alignment":
        stage = AlignmentStage(*common, phase.streams, phase.other_pairs, distill=True)
    elif training == "distillation":
        stage = DistillationStage(*common, pairs)
        networks = {modality(first).network}
    else:
        stage = DiffuserStage(*common, first, phase.prompts, learn_prompts=True)
    if training != "environment":
        stage.samples = functools.partial(write_samples, codi, phase.streams, data.examples(phase.streams))
    parts = codi.parts()
    return stage, {f"diffuser.{network}": parts[f"diffuser.{network}"] for network in sorted(networks)}


def _build_versatile(phase: Phase, codi: CoDi, out: Path, report: Callable[[str], None]) -> tuple[Stage, _Trained]:
    shared = shared_parts()
    own = {name: module for name, module in codi.parts().items() if name not in shared}
    load_parts(codi, out, *shared)
    if phase.turns == next(iter(recipe.phases(recipe.VERSATILE).values())).turns:
        start_from(codi.diffuser, read_parts("mini", ["diffuser.image"]).parts["diffuser.image"])
    else:
        load_parts(codi, out, *own)
    scenes = VersatileScenes.load_or_encode(out, codi, report=report)
    return VersatileStage(codi.diffuser, codi.prompt_encoders["text"], scenes, TURNS[phase.turns]), own
