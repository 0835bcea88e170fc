"""The small model's stages, from nothing to the shipped weights: what each reads, how long it trains, what it writes.

A run folder holds ``config.json`` (the configuration, completed as stages measure their scale factors), ``parts/`` (one
file a part), the latents of the training scenes, and one folder a stage with its state and loss curve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .. import mini
from ..checkpoints import State, read_parts, save_parts
from ..config import CoDiConfig
from ..data import ShapesAndChimes
from ..model import CoDi
from .autoencoders import AutoencoderStage
from .diffusers import AlignmentStage, DiffuserStage
from .latents import SceneLatents
from .loop import Options, Stage, train
from .prompts import PromptStage

OPTIONS = {
    "autoencoder_image": Options(steps=2500, batch_size=16, learning_rate=1.5e-3),
    "autoencoder_audio": Options(steps=1000, batch_size=16, learning_rate=1.5e-3),
    "prompts": Options(steps=2000, batch_size=256),
    "diffuser_image": Options(steps=10000, batch_size=32),
    "diffuser_audio": Options(steps=6000, batch_size=32),
    "refine_image": Options(steps=1400, batch_size=64, learning_rate=5e-4, warmup=50),
    "alignment_image_audio": Options(steps=1500, batch_size=32, learning_rate=1.5e-3, save_every=250),
}
STAGES = tuple(OPTIONS)
SCENES = 16_000


def run_stage(name: str, out: Path, options: Options | None = None, report: Callable[[str], None] = print) -> None:
    """Train one stage of the small model in the run folder `out`; the stages before it must be there.

    A stage that is finished is left as it is: later stages may have trained its parts further.
    """
    if name not in OPTIONS:
        raise ValueError(f"There is no stage {name!r}; choose from {', '.join(STAGES)}.")
    options = options or OPTIONS[name]
    out.mkdir(parents=True, exist_ok=True)
    (out / "parts").mkdir(exist_ok=True)
    torch.manual_seed(options.seed)
    stage, parts = _build(name, out, report)
    if all(_has_record(out / "parts" / f"{part}.safetensors", name, options) for part in parts):
        report(f"{name} is finished; remove {out / name} and what it wrote in {out / 'parts'} to train it again.")
        return
    record = train(stage, options, out, report)
    config = _config(out)
    if name.startswith("autoencoder"):
        modality = name.removeprefix("autoencoder_")
        config = _with_scale_factor(config, modality, stage.autoencoder.eval())
        (out / "config.json").write_text(config.to_json())
    for part, module in parts.items():
        path = out / "parts" / f"{part}.safetensors"
        further = name.startswith(("refine", "alignment"))
        earlier = [r for r in read_parts(path).training if r["stage"] != name] if further else []
        save_parts(path, config, {part: module.state_dict()}, [*earlier, record])


def _has_record(path: Path, stage: str, options: Options) -> bool:
    done = {"stage": stage, "options": dataclasses.asdict(options)}
    return path.exists() and any(done.items() <= record.items() for record in read_parts(path).training)


def pack(out: Path, destination: Path) -> list[Path]:
    """Write the finished run as half-precision checkpoint files, one a part, with configuration and training record."""
    destination.mkdir(parents=True, exist_ok=True)
    config = _config(out)
    written = []
    for part in CoDi(config).parts():
        checkpoint = read_parts(_part_file(out, part))
        written.append(destination / f"{config.name}_{part}.safetensors")
        save_parts(written[-1], config, checkpoint.parts, checkpoint.training, torch.float16)
    return written


def _build(name: str, out: Path, report: Callable[[str], None]) -> tuple[Stage, dict[str, nn.Module]]:
    config = _config(out)
    if name.startswith("autoencoder"):
        modality = name.removeprefix("autoencoder_")
        stage: Stage = AutoencoderStage(config, modality)
        return stage, {f"autoencoders.{modality}": stage.autoencoder}
    codi = CoDi(config)
    data = SceneLatents.load_or_encode(out, _trained(codi, out, "autoencoders"), SCENES, report=report)
    if name == "prompts":
        stage = PromptStage(config, data)
        return stage, {"prompt_encoders.text": stage.text_encoder}
    _trained(codi, out, "prompt_encoders")
    text_encoder = codi.prompt_encoders["text"]
    networks = {f"diffuser.{network}": module for network, module in codi.diffuser.networks.items()}
    if name.startswith("diffuser"):
        modality = name.removeprefix("diffuser_")
        stage = DiffuserStage(codi.diffuser, text_encoder, data, modality)
        return stage, {f"diffuser.{modality}": networks[f"diffuser.{modality}"]}
    if name.startswith("refine"):
        modality = name.removeprefix("refine_")
        part = f"diffuser.{modality}"
        networks[part].load_state_dict(_state(out, part))
        return DiffuserStage(codi.diffuser, text_encoder, data, modality, refine=True), {part: networks[part]}
    _trained(codi, out, "diffuser")
    return AlignmentStage(codi.diffuser, text_encoder, data, ("image", "audio")), networks


def _trained(codi: CoDi, out: Path, prefix: str) -> dict[str, nn.Module]:
    """Load the parts whose name begins with `prefix` into the model; returns them by modality."""
    loaded = {}
    for part, module in codi.parts().items():
        if part.startswith(prefix):
            module.load_state_dict(_state(out, part))
            loaded[part.removeprefix(f"{prefix}.")] = module
    return loaded


def _state(out: Path, part: str) -> State:
    return read_parts(_part_file(out, part)).parts[part]


def _part_file(out: Path, part: str) -> Path:
    path = out / "parts" / f"{part}.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: train the stage that makes {part} first.")
    return path


def _config(out: Path) -> CoDiConfig:
    path = out / "config.json"
    return CoDiConfig.from_json(path.read_text()) if path.exists() else mini.CONFIG


@torch.inference_mode()
def _with_scale_factor(config: CoDiConfig, modality: str, autoencoder: nn.Module) -> CoDiConfig:
    """Set the factor that gives the modality's latents unit variance over 512 scenes."""
    data = ShapesAndChimes(512, (modality,), seed=1)
    items = torch.stack([data[i][modality] for i in range(512)])
    latents = autoencoder.encode(items.to(next(autoencoder.parameters()).device))
    field = f"{modality}_autoencoder"
    part = dataclasses.replace(getattr(config, field), scale_factor=round(1 / float(latents.std()), 4))
    return dataclasses.replace(config, **{field: part})
