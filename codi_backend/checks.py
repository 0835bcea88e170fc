"""Checks of numbers, which every entry point shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Guidance scales, connector strengths and factors of tokens are small numbers: models are trained at 1, ComfyUI's cfg
# ends at 100. Above, results overflow into black images and noise.
MAX_SCALE = 100.0
# Shares of a mixture, of which only the ratio matters. Their sum must not overflow.
MAX_WEIGHT = 1e6
# `torch.Generator` on a CPU heeds 32 bits of its seed.
MAX_SEED = 2**32 - 1


def require_finite(
    values: Tensor | np.ndarray, what: str, remedy: str, limit: float | None = None
) -> tuple[float, float]:
    """Refuse numbers that cannot be right.

    One pass over the values, without a copy (of 8-bit floats one is needed), and one wait for a GPU.

    Parameters
    ----------
    values : Tensor or ndarray
        Of any shape and dtype; none at all pass, and so do tensors on the meta device, which have no values.
    what : str
        The subject of the message, with the name of the file or the input, as in "cat.wav" or "samples: the latent".
    remedy : str
        What the user can do, as in "make the sound again".
    limit : float, optional
        The largest magnitude that can be right; by default every finite number is.

    Returns
    -------
    tuple of float
        The lowest and the highest value; zeros where there is none.

    Raises
    ------
    ValueError
        A sentence that names `what` and the remedy.
    """
    low, high = _extent(torch.as_tensor(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{what} holds values that are not finite (NaN or infinity): {remedy}.")
    if limit is not None and (most := max(abs(low), abs(high))) > limit:
        raise ValueError(f"{what} holds values up to {most:.3g}, where at most {limit:g} makes sense: {remedy}.")
    return low, high


def require_number(value: Any, name: str, low: float, high: float) -> float:
    """A number that the user chose, as a float.

    Parameters
    ----------
    value : number
        Python's, NumPy's, or a tensor of one value.
    name : str
        Of the argument or the node's input.
    low, high : float
        The bounds, themselves allowed.

    Raises
    ------
    ValueError
        A sentence that begins with `name`, for what is no number, not finite or out of bounds.
    """
    number = _number(value)
    if number is None or not low <= number <= high:
        raise ValueError(f"{name}: {_shown(value)} is out of range; choose a number from {low:g} to {high:g}.")
    return float(number)


def require_whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number that the user chose, as an int; 30.0 is one, too.

    Parameters as for `require_number`; `ValueError` also for fractions.
    """
    number = _number(value)
    if number is None or not low <= number <= high or number != int(number):
        raise ValueError(f"{name}: {_shown(value)} is out of range; choose a whole number from {low} to {high}.")
    return int(number)


def require_shares(weights: Sequence[Any], name: str) -> list[float]:
    """Weights of the parts of a mixture, which are not negative and not all zero. `ValueError` if they are."""
    shares = [require_number(weight, name, 0, MAX_WEIGHT) for weight in weights]
    if sum(shares) == 0:
        raise ValueError(f"{name}: all are 0, so that nothing is left; give at least one a greater value.")
    return shares


def _extent(values: Tensor) -> tuple[float, float]:
    """The lowest and the highest value; NaN if any value is."""
    values = values.detach()
    if values.numel() == 0 or values.is_meta:
        return 0.0, 0.0
    if values.is_complex():
        values = torch.view_as_real(values)
    if values.is_floating_point() and values.itemsize == 1:
        values = values.bfloat16()  # which holds every 8-bit float
    elif values.dtype in (torch.uint16, torch.uint32, torch.uint64):
        values = values.double()
    low, high = torch.stack(values.aminmax()).tolist()  # NaN is handed on
    return float(low), float(high)


def _number(value: Any) -> int | float | Fraction | None:
    """What compares like a real number; None for what is none, NaN among it."""
    if isinstance(value, (int, Fraction)):
        return value
    if value is None or isinstance(value, (str, bytes)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # RuntimeError: a tensor of several values
        return None
    return None if math.isnan(number) else number


def _shown(value: Any) -> str:
    """A value as a message shows it: short and on one line."""
    if value is None:
        return "nothing"
    number = _number(value)
    if isinstance(number, int):
        return str(number) if abs(number) < 10**20 else f"about {'-' * (number < 0)}2**{number.bit_length()}"
    if number is not None or isinstance(value, float):
        return f"{float(value):g}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
