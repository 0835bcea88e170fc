"""The layers of a network in the order in which they run, by which Versatile Diffusion numbers them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from ..config import UNetConfig
from .slots import Slot
from .unet import UNet


@dataclass(frozen=True)
class BlockOrder:
    """Where the layers of a network are, as in ``input_blocks.1.0``.

    Attributes
    ----------
    data : tuple of str
        Those that belong to the network itself.
    slots : tuple of str
        Those that the diffuser lends.
    """

    data: tuple[str, ...]
    slots: tuple[str, ...]


@functools.cache
def block_order(config: UNetConfig) -> BlockOrder:
    """The order of the layers of a network that shares transformers with others."""
    with torch.device("meta"):
        network = UNet(config, shared=True)
    data, slots = [], []
    stages = [
        *((f"input_blocks.{i}", stage) for i, stage in enumerate(network.input_blocks)),
        ("middle_block", network.middle_block),
        *((f"output_blocks.{i}", stage) for i, stage in enumerate(network.output_blocks)),
    ]
    for name, stage in stages:
        for i, layer in enumerate(stage):
            (slots if isinstance(layer, Slot) else data).append(f"{name}.{i}")
    return BlockOrder((*data, "out"), tuple(slots))
