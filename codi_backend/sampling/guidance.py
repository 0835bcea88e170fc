"""Classifier-free guidance, with one scale or with one for each of several contexts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..checks.numbers import MAX_SCALE, require_number


def plan(guidance: float | Sequence[float], contexts: int) -> tuple[list[int], list[float]]:
    """Which predictions guidance needs, and the scales of their differences.

    Prediction k is conditional on the first k contexts and unconditional on the others. What context k changes is
    scaled by its own guidance: ``e_0 + sum_k s_k (e_k - e_(k-1))``. With equal scales that is the usual classifier-free
    guidance, which needs two predictions only.

    Parameters
    ----------
    guidance : float, or sequence of float
        One scale for all contexts, or one for each, in their order.
    contexts : int
        Number of contexts.

    Returns
    -------
    list of int, list of float
        Numbers of the predictions to make, ascending, and one scale for each pair of neighbours among them.

    Raises
    ------
    ValueError
        For another number of scales, or a scale that is not finite.
    """
    given = guidance if isinstance(guidance, Sequence) and not isinstance(guidance, str) else [guidance] * contexts
    scales = [require_number(scale, "guidance", -MAX_SCALE, MAX_SCALE) for scale in given]
    if len(scales) != contexts:
        raise ValueError(f"There are {len(scales)} guidance scales for {contexts} contexts: give one, or one for each.")
    kept = [k for k in range(contexts) if k == 0 or scales[k] != scales[k - 1]]
    used = [scales[k] for k in kept]
    if used[0] == 1:  # the first prediction would cancel
        return [*kept[1:], contexts], used[1:]
    return [*kept, contexts], used


def combine(predictions: Sequence[Tensor], scales: Sequence[float | Tensor]) -> Tensor:
    """The guided prediction ``e_0 + sum_k s_k (e_k - e_(k-1))``.

    Parameters
    ----------
    predictions : sequence of Tensor
        Of one shape, in the order of `plan`: from the least conditional to the fully conditional one.
    scales : sequence of float or Tensor
        One for each pair of neighbours, or a tensor that broadcasts with them.
    """
    guided = predictions[0]
    for scale, less, more in zip(scales, predictions, predictions[1:]):
        guided = guided + scale * (more - less)
    return guided
