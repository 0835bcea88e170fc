"""Single figures with their 95% intervals and targets."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_Z = 1.96  # of the normal distribution, for 95%


@dataclass(frozen=True)
class Figure:
    """One cell of a table.

    Attributes
    ----------
    row, column : str
        Its place in the table.
    value, low, high : float
        The figure and its 95% interval.
    n : int
        Number of results behind it.
    unit : {"share", "seconds"}
    target : float or None
        The value to reach.
    goal : {"at least", "at most", "chance"}
        How the target is met: by the value, or for "chance" by an interval that contains it.
    right : int or None
        For a counted share: how many of the `n` results are right.
    deviation : float or None
        For a mean: the standard deviation of the results.
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
    """The share of true values with its Wilson interval; empty without values."""
    if not right:
        return []
    n = len(right)
    p = sum(right) / n
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
    return [Figure(row, column, p, max(0.0, middle - half), min(1.0, middle + half), n, right=sum(right), **target)]


def mean(row: str, column: str, values: Sequence[float], unit: str = "seconds", **target: Any) -> list[Figure]:
    """The mean of errors in seconds, or of shares, with its normal interval; empty for fewer than two values."""
    if len(values) < 2:
        return []
    n, value, deviation = len(values), statistics.fmean(values), statistics.stdev(values)
    half = _Z * deviation / math.sqrt(n)
    low, high = max(0.0, value - half), value + half
    return [Figure(row, column, value, low, high, n, unit, deviation=deviation, **target)]
