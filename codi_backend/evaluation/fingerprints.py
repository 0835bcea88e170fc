"""Which weights judged results were made with."""

from __future__ import annotations

import hashlib
import json

import torch

from ..model import CoDi
from ..parts import needed_parts
from .runs import Run

_LISTENING = frozenset({"environment_encoder", "temporal_connectors", "input_connectors", "output_connectors"})


def fingerprint(codi: CoDi, run: Run | None = None) -> str:
    """Twelve hexadecimal digits that follow from the configuration and the weights, of the whole model or of a run.

    Of a run those that have a part in it, so that its results stay valid when another part is trained. What the
    configuration only suggests, and the heading of a run tells, is left out.
    """
    config = json.loads(codi.config.to_json())
    del config["candidates"], config["companions"]
    if run is not None and run.alignment == "none":
        del config["alignment_scale"]
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    parts = _parts(codi, run)
    for name, tensor in sorted(codi.state_dict().items()):
        path = name.removeprefix("diffuser.networks.").split(".")
        part = f"diffuser.{path[0]}" if name.startswith("diffuser.networks.") else ".".join(path[:2])
        if parts is not None and part not in parts:
            continue
        if run is not None and run.alignment == "none" and not _LISTENING.isdisjoint(path):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


def _parts(codi: CoDi, run: Run | None) -> set[str] | None:
    """The parts that a run needs; None for all."""
    if run is None or codi.config.diffuser.contexts:  # which share layers, and edit pictures by way of texts
        return None
    return needed_parts(run.prompt.modalities, [*run.streams, *run.company(codi.config)], codi.config)
