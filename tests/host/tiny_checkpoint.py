"""The tiny models as checkpoints, and their configurations for the pack's modules as ComfyUI imported them."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch

from codi_backend.config import CoDiConfig


def tiny_config(backend):
    """The configuration of the tiny model, of the backend's own class."""
    return backend.config.CoDiConfig.from_json(tiny.hosted().to_json())


def tiny_parts(config) -> dict[str, dict[str, torch.Tensor]]:
    """Random weights for a configuration, the same ones every time."""
    return tiny.states(_built(config))


def save_tiny(path: Path, without: tuple[str, ...] = (), config: CoDiConfig | None = None) -> None:
    """Write a checkpoint, by default of the tiny model; parts named in `without` are left out."""
    codi = _built(config or tiny.hosted())
    tiny.save(path, codi, [part for part in codi.parts() if part not in without])


def _built(config):
    """The model of a configuration as it is read from a file: the order of its networks decides the random weights."""
    return tiny.build(CoDiConfig.from_json(config.to_json()))
