"""How far apart in time, or in time and place, attention's tokens are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .factory import Factory

HEADS = 8


class RelativePositionBias(nn.Module):
    """Attention bias as a learned function of the distance between query and key along each of `axes` axes.

    Sizes along the axes, whose product is N -> ``[heads, N, N]``.
    """

    def __init__(self, width: int, make: Factory, axes: int = 1) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [
                nn.Sequential(make.linear(axes, width), nn.SiLU()),
                nn.Sequential(make.linear(width, width), nn.SiLU()),
                make.linear(width, HEADS),
            ]
        )

    def forward(self, sizes: Sequence[int], like: Tensor) -> Tensor:
        """Evaluate the function once per distance, then look the ``N * N`` pairs up."""
        distance = _grid([range(1 - size, size) for size in sizes], like.device)
        bias = (distance.sign() * distance.abs().log1p()).to(like.dtype)
        for layer in self.net:
            bias = layer(bias)
        number = torch.zeros((), device=like.device)  # of a place among the distances
        for size, place in zip(sizes, _grid([range(size) for size in sizes], like.device).unbind(1)):
            number = number * (2 * size - 1) + place
        middle = len(distance) // 2  # the distance 0
        return bias[(number[:, None] - number + middle).long()].permute(2, 0, 1)


def _grid(ranges: Sequence[range], device: torch.device) -> Tensor:
    """All combinations of the ranges' numbers, ``[N, axes]``, the last axis fastest."""
    steps = [torch.arange(r.start, r.stop, dtype=torch.float32, device=device) for r in ranges]
    return torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).flatten(0, -2)
