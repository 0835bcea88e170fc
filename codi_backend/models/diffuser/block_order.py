"""The execution order of a network's layers, by which Versatile Diffusion numbers them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from ...config import UNetConfig
from .shared_attention import SharedCrossAttention
from .unet import UNet


@dataclass(frozen=True)
class BlockOrder:
    """Module names of a network's layers, such as ``input_blocks.1.0``, in execution order.

    Attributes
    ----------
    data : tuple of str
        Layers with weights of their own.
    shared : tuple of str
        Shared cross-attention layers, whose transformers belong to the diffuser.
    """

    data: tuple[str, ...]
    shared: tuple[str, ...]


@functools.cache
def block_order(config: UNetConfig) -> BlockOrder:
    """The execution order of the layers of a network that shares its transformers."""
    with torch.device("meta"):
        network = UNet(config, shared=True)
    data, shared = [], []
    stages = [
        *((f"input_blocks.{i}", stage) for i, stage in enumerate(network.input_blocks)),
        ("middle_block", network.middle_block),
        *((f"output_blocks.{i}", stage) for i, stage in enumerate(network.output_blocks)),
    ]
    for name, stage in stages:
        for i, layer in enumerate(stage):
            (shared if isinstance(layer, SharedCrossAttention) else data).append(f"{name}.{i}")
    return BlockOrder((*data, "out"), tuple(shared))
