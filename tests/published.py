"""The small autoencoders of the golden cases, with weights by the rule."""

import json
from pathlib import Path

import torch
from detweights import det_array, is_buffer
from safetensors.torch import load_file

from codi_backend.autoencoders.names import from_reference, to_reference

GOLDEN = Path(__file__).parent / "golden" / "autoencoders"


def read(name):
    """Configuration and tensors of a golden case."""
    return json.loads((GOLDEN / f"{name}.json").read_text()), load_file(GOLDEN / f"{name}.safetensors")


def filled(autoencoder, prefix):
    """Give an autoencoder the weights that the rule makes for the published names and shapes."""
    shapes = to_reference(autoencoder.config, autoencoder.state_dict())
    state = {
        name: torch.from_numpy(det_array(prefix + name, tuple(value.shape)))
        for name, value in shapes.items()
        if not is_buffer(name, value)
    }
    autoencoder.load_state_dict(from_reference(autoencoder.config, state))
    return autoencoder.eval()


def operations(*kinds):
    """Layer classes like `torch.nn`'s, but without weights, as ComfyUI's may be before a checkpoint is read."""

    def weightless(base):
        def __init__(self, *args, **kwargs):
            base.__init__(self, *args, **kwargs)
            for name in list(self._parameters):
                self._parameters[name] = None

        return type(base.__name__, (base,), {"__init__": __init__, "reset_parameters": lambda self: None})

    return type("Operations", (), {kind: weightless(getattr(torch.nn, kind)) for kind in kinds})
