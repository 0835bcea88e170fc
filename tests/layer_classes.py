"""Layer classes that start in another way than `torch.nn`'s."""

import torch


def layers(init):
    """Make a set of layer classes like `torch.nn`'s, with another way to start."""

    def derived(base):
        def __init__(self, *args, **kwargs):
            base.__init__(self, *args, **kwargs)
            init(self)

        return type(base.__name__, (base,), {"__init__": __init__, "reset_parameters": lambda self: None})

    kinds = ("Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm", "Embedding")
    return type("Operations", (), {kind: derived(getattr(torch.nn, kind)) for kind in kinds})


def without_weights(layer):
    """Take the weights away; ComfyUI's layers may get theirs only when a checkpoint is loaded."""
    for name in list(layer._parameters):
        layer._parameters[name] = None
