"""Versatile Diffusion's golden cases, and models with the weights that made them."""

import json
from pathlib import Path

import torch
from detweights import det_array, det_input, is_buffer
from safetensors.torch import load_file

from codi_backend.pipeline import CoDi

GOLDEN = Path(__file__).parent / "golden" / "versatile"


def read(name):
    """Description and tensors of a case."""
    return json.loads((GOLDEN / f"{name}.json").read_text()), load_file(GOLDEN / f"{name}.safetensors")


def by_rule(config):
    """A model with the weights that the rule makes of the published names."""
    with torch.device("meta"):
        state = CoDi(config).to_reference_state_dict()
    made = {}
    for key, value in state.items():
        if not key.startswith(("ctx.image.model.text_", "ctx.text.model.vi")):  # the copies of CLIP that nobody reads
            rule = (
                torch.empty if is_buffer(key, value) else lambda shape, key=key: torch.from_numpy(det_array(key, shape))
            )
            made[key] = rule(tuple(value.shape))
    return CoDi.from_state_dict(made, config)


def drawn(name, *shape):
    """An input that the rule makes of its name."""
    return torch.from_numpy(det_input(name, shape))
