"""Weights that depend on nothing but a parameter's name and shape.

Origin: the rule of the project's reference data (`reference/detweights.py`), by which the golden vectors were made; it
is our own code, not the original model's.
"""

import zlib

import numpy as np
import torch


def det_uniform(key, n):
    """`n` numbers in [0, 1), exact in single precision, from numpy's Philox stream for this name."""
    raw = np.random.Philox(key=zlib.crc32(key.encode())).random_raw(n)
    return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def det_array(key, shape, gain=1.0):
    """A parameter: variance 1/fan_in for matrices and kernels, near 1 for norm scales, near 0 for biases."""
    n = int(np.prod(shape)) if len(shape) else 1
    d = det_uniform(key, n) * np.float32(2) - np.float32(1)
    last = key.split(".")[-1]
    if len(shape) >= 2 and last != "g":
        d = d * np.float32((3.0 / int(np.prod(shape[1:]))) ** 0.5 * gain)
    elif last in ("weight", "g"):
        d = np.float32(1) + np.float32(0.1) * d
    elif last == "running_var":
        d = np.float32(1) + np.float32(0.5) * d
    else:
        d = d * np.float32(0.05)
    return d.reshape(shape)


BUFFERS = (
    "relative_position_index",
    "attn_mask",
    "position_ids",
    "num_batches_tracked",
    "forward_basis",
    "inverse_basis",
    "mel_basis",
)


def is_buffer(key, tensor):
    """Whether the rule leaves this tensor alone."""
    mask = key.endswith(".attn.bias") and tensor.ndim == 4
    return mask or not tensor.is_floating_point() or key.endswith(BUFFERS)


def fill_(module, prefix="", name=lambda key: key, gain=1.0):
    """Overwrite all floating-point tensors of a module; `name` turns our names into the published ones."""
    seen = set()
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if is_buffer(key, value) or value.data_ptr() in seen:  # tied tensors: the first name wins
                continue
            seen.add(value.data_ptr())
            value.copy_(torch.from_numpy(det_array(prefix + name(key), tuple(value.shape), gain)))
    return module


def det_input(name, shape, kind="normal"):
    """Inputs: a sum of twelve uniforms (nearly normal), or uniform in -1..1."""
    n = int(np.prod(shape))
    if kind == "uniform":
        return (det_uniform(name, n) * 2 - 1).reshape(shape).astype(np.float32)
    return (det_uniform(name, 12 * n).reshape(12, n).astype(np.float64).sum(0) - 6.0).reshape(shape).astype(np.float32)
