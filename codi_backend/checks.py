"""Checks of numbers, which every entry point shares."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

AUDIO_LIMIT = 100.0
"""Samples of audio lie in -1..1. Some files overshoot that, but not by as much."""


def require_finite(values: Tensor | np.ndarray, what: str, remedy: str, limit: float | None = None) -> None:
    """Refuse numbers that cannot be right.

    Parameters
    ----------
    values : Tensor or ndarray
        Of any shape; integers pass.
    what : str
        The subject of the message, with the name of the file or the input, as in "cat.wav" or "samples: the latent".
    remedy : str
        What the user can do, as in "make the sound again".
    limit : float, optional
        The largest magnitude that can be right; by default every finite number is.

    Raises
    ------
    ValueError
        A sentence that names `what` and the remedy.
    """
    values = torch.as_tensor(values)
    if values.numel() == 0 or not values.is_floating_point():
        return
    low, high = map(float, values.detach().aminmax())  # NaN is handed on
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"{what} holds values that are not finite (NaN or infinity): {remedy}.")
    if limit is not None and (most := max(abs(low), abs(high))) > limit:
        raise ValueError(f"{what} holds values up to {most:.3g}, where at most {limit:g} makes sense: {remedy}.")
