"""Single figures with their 95% intervals and what they should be."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_Z = 1.96  # of the normal distribution, for 95%


@dataclass(frozen=True)
class Figure:
    """One cell of a table.

    Attributes
    ----------
    row, column : str
        Where it stands.
    value, low, high : float
        The figure and its 95% interval.
    n : int
        Results that it was measured on.
    unit : {"share", "seconds"}
    target : float or None
        What is asked for.
    goal : {"at least", "at most", "chance"}
        How the value relates to the target; "chance" asks for an interval that holds it.
    right : int or None
        Of a counted share: how many of the `n` results are right.
    deviation : float or None
        Of a mean: the standard deviation of the results.
    """

    row: str
    column: str
    value: float
    low: float
    high: float
    n: int
    unit: str = "share"
    target: float | None = None
    goal: str = "at least"
    right: int | None = None
    deviation: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        if self.goal == "chance":
            return self.low <= self.target <= self.high
        return self.value >= self.target if self.goal == "at least" else self.value <= self.target

    def to_dict(self) -> dict[str, Any]:
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in dataclasses.asdict(self).items()} | {
            "met": self.met
        }


def share(row: str, column: str, right: Sequence[bool], **target: Any) -> list[Figure]:
    """The share of true values with its Wilson interval; no figure where nothing was measured."""
    return [_share(row, column, sum(right), len(right), target)] if right else []


def mean(row: str, column: str, values: Sequence[float], unit: str = "seconds", **target: Any) -> list[Figure]:
    """The mean of errors in seconds, or of shares, with its normal interval; no figure for fewer than two."""
    if len(values) < 2:
        return []
    return [_mean(row, column, statistics.fmean(values), statistics.stdev(values), len(values), unit, target)]


def together(a: Figure, b: Figure) -> Figure:
    """The figure of the results behind both.

    What was computed rather than measured (chance, strangers, targets that follow from other figures) is the mean of
    both, weighted by their results.
    """
    n = a.n + b.n
    value = (a.n * a.value + b.n * b.value) / n
    target: dict[str, Any] = {}
    if aimed := [f for f in (a, b) if f.target is not None]:
        aim = sum(f.n * f.target for f in aimed) / sum(f.n for f in aimed)
        target = {"target": aim, "goal": aimed[0].goal}
    if a.right is not None and b.right is not None:
        return _share(b.row, b.column, a.right + b.right, n, target)
    if a.deviation is not None and b.deviation is not None:
        squares = sum((f.n - 1) * f.deviation**2 + f.n * (f.value - value) ** 2 for f in (a, b))
        return _mean(b.row, b.column, value, math.sqrt(squares / (n - 1)), n, b.unit, target)
    return Figure(b.row, b.column, value, value, value, n, b.unit, **target)


def _share(row: str, column: str, right: int, n: int, target: Mapping[str, Any]) -> Figure:
    p = right / n
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
    return Figure(row, column, p, max(0.0, middle - half), min(1.0, middle + half), n, right=right, **target)


def _mean(
    row: str, column: str, value: float, deviation: float, n: int, unit: str, target: Mapping[str, Any]
) -> Figure:
    half = _Z * deviation / math.sqrt(n)
    return Figure(row, column, value, max(0.0, value - half), value + half, n, unit, deviation=deviation, **target)
