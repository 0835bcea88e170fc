"""Checks of numbers that all entry points share."""

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
# Weights of a mixture, of which only the ratio matters. Their sum must not overflow.
MAX_WEIGHT = 1e6
# `torch.Generator` on a CPU uses 32 bits of its seed.
MAX_SEED = 2**32 - 1


def require_finite(
    values: Tensor | np.ndarray, what: str, remedy: str, limit: float | None = None
) -> tuple[float, float]:
    """Raise a `ValueError` for values that are not finite or too large.

    It takes one pass without a copy (except of 8-bit floats), and one synchronisation with a GPU.

    Parameters
    ----------
    values : Tensor or ndarray
        Of any shape and dtype; empty tensors and meta tensors pass.
    what : str
        The subject of the message, with the name of the file or the input, such as "cat.wav" or "samples: the latent".
    remedy : str
        What the user can do, such as "record the audio again".
    limit : float, optional
        The largest valid magnitude; no limit by default.

    Returns
    -------
    tuple of float
        The lowest and the highest value; zeros for an empty tensor.

    Raises
    ------
    ValueError
        The message names `what` and the remedy.
    """
    low, high = _extent(torch.as_tensor(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{what} holds values that are not finite (NaN or infinity): {remedy}.")
    if limit is not None and (most := max(abs(low), abs(high))) > limit:
        raise ValueError(f"{what} holds values up to {most:.3g}, where at most {limit:g} makes sense: {remedy}.")
    return low, high


def require_number(value: Any, name: str, low: float, high: float) -> float:
    """Check a number of the user, and return it as a float.

    Parameters
    ----------
    value : number
        Of Python or NumPy, or a tensor of one value.
    name : str
        Name of the argument or the node's input.
    low, high : float
        Bounds, inclusive.

    Raises
    ------
    ValueError
        For a value that is not a number, not finite or out of bounds; the message begins with `name`.
    """
    number = _number(value)
    if number is None or not low <= number <= high:
        raise ValueError(f"{name}: {_shown(value)} is out of range; choose a number from {low:g} to {high:g}.")
    return float(number)


def require_whole(value: Any, name: str, low: int, high: int) -> int:
    """Check a whole number of the user, and return it as an int; 30.0 is valid.

    Parameters as for `require_number`; `ValueError` also for fractions.
    """
    number = _number(value)
    if number is None or not low <= number <= high or number != int(number):
        raise ValueError(f"{name}: {_shown(value)} is out of range; choose a whole number from {low} to {high}.")
    return int(number)


def require_shares(weights: Sequence[Any], name: str) -> list[float]:
    """Check the weights of a mixture. `ValueError` if one is negative or all are zero."""
    shares = [require_number(weight, name, 0, MAX_WEIGHT) for weight in weights]
    if sum(shares) == 0:
        raise ValueError(f"{name}: all are 0; give at least one a greater value.")
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
    low, high = torch.stack(values.aminmax()).tolist()  # NaN propagates
    return float(low), float(high)


def _number(value: Any) -> int | float | Fraction | None:
    """Convert a value to a real number; None for NaN and values that are not numbers."""
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
    """Format a value for a message, short and on one line."""
    if value is None:
        return "nothing"
    number = _number(value)
    if isinstance(number, int):
        return str(number) if abs(number) < 10**20 else f"about {'-' * (number < 0)}2**{number.bit_length()}"
    if number is not None or isinstance(value, float):
        return f"{float(value):g}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
