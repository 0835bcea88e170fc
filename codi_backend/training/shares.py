"""Sharing one training batch, and its noise, among processes and micro-batches."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_DRAWS = (torch.randn, torch.rand, torch.randint)


def share(batch: Any, part: int, parts: int) -> Any:
    """Part `part` of `parts` of a batch: tensors and lists are cut along their first axis, in dicts and tuples."""
    if isinstance(batch, dict):
        return {key: share(value, part, parts) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(share(value, part, parts) for value in batch)
    rows = len(batch) // parts
    return batch[part * rows : (part + 1) * rows]


class SharedNoise(TorchFunctionMode):
    """Context in which noise drawn from `generator` is the share of the noise of the whole batch.

    A stage draws noise for its own samples, with samples on the first axis. The noise of the whole batch is drawn and
    cut, so that neither the number of processes nor that of micro-batches changes the noise of any sample.
    """

    def __init__(self, generator: torch.Generator, part: int, parts: int):
        super().__init__()
        self.generator, self.part, self.parts = generator, part, parts

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is not self.generator or self.parts == 1:
            return function(*args, **kwargs)
        if function not in _DRAWS:
            raise TypeError(
                f"A stage drew noise by {function.__name__}: use torch.randn, rand or randint, with samples on the "
                "first axis."
            )
        if "size" in kwargs:
            size = kwargs.pop("size")
        elif isinstance(args[-1], (tuple, list)):
            *args, size = args
        else:
            args, size = (), args
        return share(function(*args, (size[0] * self.parts, *size[1:]), **kwargs), self.part, self.parts)
