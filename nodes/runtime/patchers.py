"""The base of networks that ComfyUI's memory manager loads: prompt encoders and autoencoders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...codi_backend.checkpoints.files import Source
from ...codi_backend.checkpoints.native import read_parts
from ...codi_backend.checkpoints.tensor_file import convert
from ...codi_backend.checkpoints.weight_values import require_finite_weights


@dataclass(frozen=True)
class Weights:
    """The place of a part's weights, which are read on demand."""

    source: Source
    part: str

    def read(self, dtype: torch.dtype | None = None, quantised: bool = False) -> dict[str, Tensor]:
        """The state dict of the part, brought to `dtype` if given. `ValueError` if it is incomplete or not finite.

        With `quantised`, quantised weights stay so.
        """
        checkpoint = read_parts(self.source, only=[self.part])
        state, name = checkpoint.take(self.part, quantised=quantised), checkpoint.called(self.part)
        if dtype is None:
            require_finite_weights(state, name)
        else:
            convert(state, dtype, name)
        return state


class Managed:
    """A network with its own `ModelPatcher`, built from its weights at its first use.

    Parameters
    ----------
    config
        The network's configuration.
    weights : Weights
    """

    def __init__(self, config: Any, weights: Weights):
        self.config = config
        self._weights = weights

    @cached_property
    def patcher(self) -> ModelPatcher:
        return self._build()

    def _build(self) -> ModelPatcher:
        raise NotImplementedError

    def _load(self, values: float) -> nn.Module:
        """The network, loaded, with free memory for so many single-precision numbers."""
        whole = not all(hasattr(module, "comfy_cast_weights") for module in _leaves(self.patcher.model))
        # Only ComfyUI's layers can run from another device; others must be loaded as a whole.
        mm.load_models_gpu([self.patcher], memory_required=4 * values, force_full_load=whole)
        return self.patcher.model


def _leaves(network: nn.Module) -> Iterator[nn.Module]:
    return (module for module in network.modules() if next(module.parameters(recurse=False), None) is not None)


def in_batches(inputs, size: int) -> Iterator:
    """The rows of a tensor, or the items of a list, in batches of `size`. Stops when the user interrupts."""
    for start in range(0, len(inputs), size):
        mm.throw_exception_if_processing_interrupted()
        yield inputs[start : start + size]


def finished(result: Tensor) -> Tensor:
    """The result of a managed network in single precision on the intermediate device, as nodes return it."""
    return result.to(mm.intermediate_device(), torch.float32)
