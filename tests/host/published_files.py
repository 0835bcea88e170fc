"""Files as the published ones are, but small."""

from __future__ import annotations

import json
from pathlib import Path

import torch

SMALL = Path(__file__).resolve().parents[1] / "golden" / "small_config.json"


def save_published(host, monkeypatch, folder: Path):
    """Write the four files, and let the pack expect their size; returns the model that they hold."""
    config, module = host.module("codi_backend.config"), host.module("codi_backend.checkpoints.codi")
    small = config.CoDiConfig.from_reference(json.loads(SMALL.read_text()))
    monkeypatch.setattr(module, "CONFIG", small)
    monkeypatch.setattr(module.configure, "__defaults__", (small,))
    torch.manual_seed(0)
    model = host.module("codi_backend.pipeline").CoDi(small)
    files = {}
    for key, value in model.to_reference_state_dict().items():
        files.setdefault(module.FILES[module.part_of(key)], {})[key] = value
    folder.mkdir(exist_ok=True)
    for name, state in files.items():
        torch.save(state, folder / name)
    return model
