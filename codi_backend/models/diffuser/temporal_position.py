"""Relative position bias of attention over time, or over time and space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layer_factory import LayerFactory

HEADS = 8


class RelativePositionBias(nn.Module):
    """Attention bias as a learned function of the distance between query and key along each of `axes` axes.

    Takes the sizes along the axes, whose product is N; returns ``[heads, N, N]``.
    """

    def __init__(self, width: int, factory: LayerFactory, axes: int = 1) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [
                nn.Sequential(factory.linear(axes, width), nn.SiLU()),
                nn.Sequential(factory.linear(width, width), nn.SiLU()),
                factory.linear(width, HEADS),
            ]
        )

    def forward(self, sizes: Sequence[int], like: Tensor) -> Tensor:
        """The bias on the device and in the dtype of `like`; the function is evaluated once per distance."""
        distance = _grid([range(1 - size, size) for size in sizes], like.device)
        bias = (distance.sign() * distance.abs().log1p()).to(like.dtype)
        for layer in self.net:
            bias = layer(bias)
        index = torch.zeros((), device=like.device)  # of a position among the distances
        for size, position in zip(sizes, _grid([range(size) for size in sizes], like.device).unbind(1)):
            index = index * (2 * size - 1) + position
        middle = len(distance) // 2  # the distance 0
        return bias[(index[:, None] - index + middle).long()].permute(2, 0, 1)


def _grid(ranges: Sequence[range], device: torch.device) -> Tensor:
    """The Cartesian product of ranges, ``[N, axes]``, with the last axis fastest."""
    steps = [torch.arange(r.start, r.stop, dtype=torch.float32, device=device) for r in ranges]
    return torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).flatten(0, -2)
