"""Checks of the numbers in weights, one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

_PIECE = 1 << 22  # values that are converted at once


def extremes(value: Tensor) -> tuple[float, float]:
    """Smallest and largest value of a floating-point tensor of any shape; NaN if there is one, 0 if it is empty."""
    if value.numel() == 0:
        return 0.0, 0.0
    if value.dtype.itemsize > 1:
        low, high = value.detach().aminmax()
        return float(low), float(high)
    ends = torch.stack([torch.stack(piece.float().aminmax()) for piece in _pieces(value)])
    return float(ends[:, 0].min()), float(ends[:, 1].max())


def count_not_finite(value: Tensor) -> int:
    """Number of NaN and infinite values."""
    if not value.is_floating_point() or all(map(math.isfinite, extremes(value))):
        return 0
    narrow = value.dtype.itemsize == 1  # few torch functions support it
    return sum(int((~(piece.float() if narrow else piece).isfinite()).sum()) for piece in _pieces(value))


class WeightCheck:
    """Checks tensors one by one for values that are NaN or infinite, or would be so in another precision.

    Parameters
    ----------
    what : str
        The subject of the message, such as "diffuser.image of a.safetensors".
    dtype : torch.dtype, optional
        Floating-point type that the weights are converted to.
    """

    def __init__(self, what: str, dtype: torch.dtype | None = None):
        self._what, self._dtype = what, dtype
        self._broken: list[str] = []
        self._large: list[str] = []
        self._most = 0.0

    def add(self, key: str, value: Tensor) -> None:
        """Check a tensor, which is read once; integers pass."""
        if not value.is_floating_point():
            return
        ends = extremes(value)
        if not all(map(math.isfinite, ends)):
            self._broken.append(key)
        elif self._dtype and not torch.tensor(ends, dtype=torch.float64).to(self._dtype).double().isfinite().all():
            self._large.append(key)
            self._most = max(self._most, -ends[0], ends[1])

    def finish(self) -> None:
        """Raise a `ValueError` that names the tensors and, for a precision that is too small, the largest value."""
        if self._broken:
            raise ValueError(
                f"{self._what} holds values that are not finite (NaN or infinity) in {_named(self._broken)}: "
                "fetch or train it again."
            )
        if self._large:
            limit, name = torch.finfo(self._dtype).max, str(self._dtype).removeprefix("torch.")
            raise ValueError(
                f"{self._what} holds values up to {self._most:.6g} in {_named(self._large)}, where {name} ends at "
                f"{limit:g}: choose bf16 or fp32."
            )


def require_finite_weights(state: Mapping[str, Tensor], what: str, dtype: torch.dtype | None = None) -> None:
    """Raise a `ValueError` for a state dict with such values; see `WeightCheck`."""
    check = WeightCheck(what, dtype)
    for key, value in state.items():
        check.add(key, value)
    check.finish()


def _pieces(value: Tensor) -> tuple[Tensor, ...]:
    return value.detach().reshape(-1).split(_PIECE)


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more tensors" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
