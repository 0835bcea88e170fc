"""The networks beside the diffuser, in the care of ComfyUI's memory manager."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..codi_backend.checkpoint_files import Source
from ..codi_backend.checkpoints import read_parts
from ..codi_backend.tensor_files import convert
from ..codi_backend.weight_values import require_finite_weights


@dataclass(frozen=True)
class Weights:
    """Where the weights of a part are; reading them is left to whoever needs them."""

    source: Source
    part: str

    def read(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The state dict of the part, brought to `dtype` if given. `ValueError` if it is incomplete or not finite."""
        checkpoint = read_parts(self.source, only=[self.part])
        state, name = checkpoint.take(self.part), checkpoint.called(self.part)
        if dtype is None:
            require_finite_weights(state, name)
        else:
            convert(state, dtype, name)
        return state


class Managed:
    """A network in a `ModelPatcher` of its own, which is made, and its weights read, when it is first used.

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
        """The network, loaded with room for so many single-precision numbers beside it."""
        whole = not all(getattr(module, "comfy_cast_weights", False) for module in _leaves(self.patcher.model))
        # Layers that are not ComfyUI's cannot run from another device: all or nothing.
        mm.load_models_gpu([self.patcher], memory_required=4 * values, force_full_load=whole)
        return self.patcher.model


def _leaves(network: nn.Module) -> Iterator[nn.Module]:
    return (module for module in network.modules() if next(module.parameters(recurse=False), None) is not None)


def in_batches(inputs, size: int) -> Iterator:
    """So many of a tensor's rows, or of a list's items, at a time; stops when the user interrupts."""
    for start in range(0, len(inputs), size):
        mm.throw_exception_if_processing_interrupted()
        yield inputs[start : start + size]


def finished(result: Tensor) -> Tensor:
    """What a managed network gave, where and as nodes hand it on: in single precision on the intermediate device."""
    return result.to(mm.intermediate_device(), torch.float32)
