"""Layers for quantised weights: ComfyUI's mixed precision operations, and convolutions, which those lack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ops
import torch
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor, get_layout_class
from torch import Tensor, nn

from ...codi_backend.checkpoints.quantisation import RECORD, SCALE, quantised_layers, read_format


def layouts_of(state: dict[str, Tensor]) -> dict[str, str]:
    """ComfyUI's layout of each quantised layer; `ValueError` if this ComfyUI has none for it."""
    return {layer: _layout(read_format(state[f"{layer}.{RECORD}"]).name) for layer in quantised_layers(state)}


def _layout(name: str) -> str:
    layout = QUANT_ALGOS.get(name, {}).get("comfy_tensor_layout")
    if layout is None or get_layout_class(layout) is None:
        raise ValueError(
            f"the weights are quantised as {name}, which this ComfyUI cannot load: update it and its requirements, or "
            "convert the files with codi convert --dtype fp16."
        )
    return layout


def mixed_precision(dtype: torch.dtype, embedding: type = comfy.ops.manual_cast.Embedding) -> type:
    """Layer classes that load plain and quantised weights and compute in `dtype`; embeddings are of a given class.

    Quantised weights stay quantised in memory, and are dequantised in each forward pass. ComfyUI's linear layers do not
    dequantise int8 weights: they quantise the rows of their inputs, and multiply whole numbers.
    """
    operations = comfy.ops.mixed_precision_ops({}, dtype, full_precision_mm=True)
    members: dict[str, Any] = {"Embedding": embedding}
    for name in ("Conv1d", "Conv2d", "Conv3d"):
        members[name] = type(name, (_Convolution, getattr(operations, name)), {"compute_dtype": dtype})
    return type("Operations", (operations,), members)


class _Convolution:
    """What the linear layer of ComfyUI's mixed precision operations has, for a convolution."""

    compute_dtype: torch.dtype

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, *more: Any) -> None:
        record = state_dict.pop(f"{prefix}{RECORD}", None)
        if record is not None:
            self._record = record
            values, scale = state_dict.pop(f"{prefix}weight"), state_dict.pop(f"{prefix}{SCALE}")
            if not self.weight.is_meta:
                values, scale = values.to(self.weight.device), scale.to(self.weight.device)
            layout = _layout(read_format(record).name)
            parameters = get_layout_class(layout).Params(
                scale=scale, orig_dtype=self.compute_dtype, orig_shape=tuple(values.shape)
            )
            self.weight = nn.Parameter(QuantizedTensor(values, layout, parameters), requires_grad=False)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *more)
        if record is not None:
            missing_keys.remove(f"{prefix}weight")

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if isinstance(self.weight, QuantizedTensor):
            destination |= self.weight.state_dict(f"{prefix}weight") | {f"{prefix}{RECORD}": self._record}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True):
        for name, parameter in self._parameters.items():
            if parameter is not None:
                moved = fn(parameter)
                if moved.is_inference() and not torch.is_inference_mode_enabled():
                    moved = moved.clone()
                self._parameters[name] = nn.Parameter(moved, requires_grad=False)
        return self

    def convert_weight(self, weight: Tensor, inplace: bool = False, **_: Any) -> Tensor:
        """The weight that a LoRA is added to."""
        return weight.dequantize() if isinstance(weight, QuantizedTensor) else weight

    def set_weight(self, weight: Tensor, inplace_update: bool = False, seed=None, return_weight=False, **_: Any):
        """Take the weight with a LoRA, in the format that the layer has."""
        if isinstance(self.weight, QuantizedTensor):
            weight = self.weight.requantize_from_float(weight, scale="recalculate", stochastic_rounding=seed)
        weight = weight.to(self.weight.dtype)
        if return_weight:
            return weight
        self.weight = nn.Parameter(weight, requires_grad=False)
        return None
