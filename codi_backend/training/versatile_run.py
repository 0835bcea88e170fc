"""The run folder of the built-in Versatile Diffusion, which begins with parts of the shipped small CoDi."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from ..checkpoints.native import read_parts, resolve, save_parts
from ..checkpoints.parts import FIELDS, build, part_names
from ..presets import vd_mini
from .recipe import VERSATILE
from .run_folder import read_config, write_config
from .statistics import SPREAD


def shared_parts() -> list[str]:
    """The parts that the small Versatile Diffusion has from the small CoDi; they are not trained again."""
    return [part for part in part_names(vd_mini.CONFIG) if part in FIELDS]


def begin_versatile(out: Path) -> None:
    """Write the configuration and the shared parts, unless they are there.

    `ValueError` if `out` is the run folder of another model.
    """
    if (out / "config.json").exists():
        if read_config(out).diffuser.contexts:
            return
        raise ValueError(f"{out} is the run folder of another model: train {VERSATILE} in a new one.")
    shipped = [read_parts(file) for file in resolve("mini")]
    scales = {}
    for name in ("image", "text"):
        field = f"{name}_autoencoder"
        # All latents have a spread of 1 here, since no stream follows another one.
        scale_factor = round(getattr(shipped[0].config, field).scale_factor / SPREAD.get(name, 1.0), 4)
        scales[field] = dataclasses.replace(getattr(vd_mini.CONFIG, field), scale_factor=scale_factor)
    config = dataclasses.replace(vd_mini.CONFIG, **scales)
    for checkpoint in shipped:
        for part in checkpoint.parts.keys() & set(shared_parts()):
            with torch.device("meta"):
                needed = build(part, config).state_dict()  # without the temporal layers
            state = {key: checkpoint.parts[part][key] for key in needed}
            save_parts(out / "parts" / f"{part}.safetensors", config, {part: state}, checkpoint.training)
    write_config(out, config)
