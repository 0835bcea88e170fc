"""Fingerprints of the weights behind judged results."""

from __future__ import annotations

import hashlib
import json

import torch

from ..checkpoints.parts import needed_parts
from ..pipeline import CoDi
from .runs import Run

_ALIGNMENT = frozenset({"environment_encoder", "temporal_connectors", "input_connectors", "output_connectors"})


def fingerprint(codi: CoDi, run: Run | None = None) -> str:
    """Twelve hexadecimal digits of a hash of configuration and weights, of the whole model or of a run.

    The hash of a run covers the parts that it uses, so that its results stay valid when another part is trained.
    Defaults that the heading of a run states (number of candidates, auxiliary streams) are left out.
    """
    config = json.loads(codi.config.to_json())
    del config["num_candidates"], config["auxiliary_streams"]
    if run is not None and run.alignment == "none":
        del config["modality_guidance"]
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    parts = _parts(codi, run)
    for name, tensor in sorted(codi.state_dict().items()):
        path = name.removeprefix("diffuser.networks.").split(".")
        part = f"diffuser.{path[0]}" if name.startswith("diffuser.networks.") else ".".join(path[:2])
        if parts is not None and part not in parts:
            continue
        if run is not None and run.alignment == "none" and not _ALIGNMENT.isdisjoint(path):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


def _parts(codi: CoDi, run: Run | None) -> set[str] | None:
    """The parts that a run needs; None for all."""
    if (
        run is None or codi.config.diffuser.contexts
    ):  # its networks share layers, and images are edited by way of captions
        return None
    return needed_parts(run.prompt.modalities, [*run.streams, *run.auxiliary_streams(codi.config)], codi.config)
