"""The layer factory: layer classes, dtype, device and attention function in one object."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AttentionFunction = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head attention over tokens.

    Parameters
    ----------
    q : Tensor
        ``[B, N, heads * dim]``.
    k, v : Tensor
        ``[B, M, heads * dim]``.

    Returns
    -------
    Tensor
        ``[B, N, heads * dim]``.
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class LayerFactory:
    """Builds every layer with weights.

    Attributes
    ----------
    operations : module or class
        Has the classes Linear, Conv2d, Conv3d, GroupNorm and LayerNorm: `torch.nn`, or one of ComfyUI's `comfy.ops`.
    dtype, device
        Of the parameters.
    attention : callable
        Has the signature of `attention` in this module.
    """

    operations: Any = nn
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    attention: AttentionFunction = attention

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        return self.operations.Linear(inputs, outputs, bias=bias, dtype=self.dtype, device=self.device)

    def conv(self, inputs: int, outputs: int, kernel: int = 3, stride: int | tuple[int, int] = 1) -> nn.Module:
        return self.operations.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, dtype=self.dtype, device=self.device
        )

    def pointwise3d(self, inputs: int, outputs: int) -> nn.Module:
        return self.operations.Conv3d(inputs, outputs, 1, bias=False, dtype=self.dtype, device=self.device)

    def group_norm(self, channels: int, eps: float = 1e-5) -> nn.Module:
        """Group normalisation with 32 groups as published, fewer if 32 does not divide the channels."""
        groups = math.gcd(32, channels)
        return self.operations.GroupNorm(groups, channels, eps=eps, dtype=self.dtype, device=self.device)

    def layer_norm(self, channels: int) -> nn.Module:
        return self.operations.LayerNorm(channels, dtype=self.dtype, device=self.device)

    def zeroed(self, layer: nn.Module) -> nn.Module:
        """Initialise a layer with zeros, so that its residual block starts as the identity.

        Only torch's layers are changed: ComfyUI's may have no weight yet, and always load one.
        """
        if self.operations is nn:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        return layer
