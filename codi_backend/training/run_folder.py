"""A run folder of the recipe: ``config.json``, ``parts/`` with one file a part, stored latents, a folder a stage.

The configuration is completed by the stages that train autoencoders, which measure scale factors.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..checkpoints.native import State, read_parts
from ..config import CoDiConfig
from ..pipeline import CoDi
from ..presets import mini


def read_config(out: Path) -> CoDiConfig:
    """The configuration of a run; that of the small CoDi before the first autoencoder is finished."""
    path = out / "config.json"
    return CoDiConfig.from_json(path.read_text()) if path.exists() else mini.CONFIG


def write_config(out: Path, config: CoDiConfig) -> None:
    """Write the configuration of a run."""
    (out / "config.json").write_text(config.to_json())


def part_file(out: Path, part: str) -> Path:
    """The file of a part. `FileNotFoundError` if no stage has written it yet."""
    path = out / "parts" / f"{part}.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: train the stage that makes {part} first.")
    return path


def load_parts(codi: CoDi, out: Path, *names: str) -> None:
    """Load trained parts of a run into the model; errors as of `part_file`."""
    parts = codi.parts()
    for name in sorted(names):
        load_part(parts[name], out, name)


def load_part(module: nn.Module, out: Path, name: str) -> None:
    """Load a trained part of a run into its module; errors as of `part_file`."""
    state: State = read_parts(part_file(out, name)).parts[name]
    module.load_state_dict(state)
