"""Layers whose weights stay in 8 bits in memory and are dequantised at every forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CONVOLUTIONS = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


class QuantisedLayer(nn.Module):
    """A linear or convolutional layer with an 8-bit weight and one scale; it computes in the dtype of its input.

    The tensors in its state dict are those of ComfyUI's quantised layers, see `checkpoints.quantisation`. Moving it to
    another dtype moves only its bias.

    Parameters
    ----------
    layer : nn.Linear, nn.Conv1d, nn.Conv2d or nn.Conv3d
        The layer to replace, of which sizes and bias are taken. The weight is empty until a state dict is loaded with
        ``assign=True``.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty_like(layer.weight, dtype=torch.int8, device="meta"), requires_grad=False)
        self.register_buffer("weight_scale", torch.empty((), device="meta"))
        self.register_buffer("comfy_quant", torch.empty(0, dtype=torch.uint8, device="meta"))
        self.register_parameter("bias", layer.bias)
        self._compute: Callable[[Tensor, Tensor, Tensor | None], Tensor] = F.linear
        if not isinstance(layer, nn.Linear):
            options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
            self._compute = partial(_CONVOLUTIONS[type(layer)], **options)

    def forward(self, x: Tensor) -> Tensor:
        return self._compute(x, self.weight.to(x.dtype) * self.weight_scale, self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        self.comfy_quant = state_dict[f"{prefix}comfy_quant"]  # of any length
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantisedLayer:
        kept = {"weight": self.weight.data, "weight_scale": self.weight_scale, "comfy_quant": self.comfy_quant}
        device = fn(torch.empty(0, device=self.weight.device)).device
        if self.bias is not None:
            self.bias.data = fn(self.bias.data)
        self.weight = nn.Parameter(kept["weight"].to(device), requires_grad=False)
        self.weight_scale, self.comfy_quant = kept["weight_scale"].to(device), kept["comfy_quant"].to(device)
        return self


def replace_layers(network: nn.Module, names: Iterable[str]) -> None:
    """Replace layers of a network, by name, with `QuantisedLayer`; `ValueError` for layers of other kinds."""
    for name in names:
        layer = network.get_submodule(name)
        if not isinstance(layer, (nn.Linear, *_CONVOLUTIONS)):
            raise ValueError(
                f"{name} is quantised, which only linear and convolutional layers may be: use a file of codi convert."
            )
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, QuantisedLayer(layer))
