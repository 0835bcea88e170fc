"""Single figures with their 95% intervals and what they should be."""

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
    if not right:
        return []
    n, p = len(right), sum(right) / len(right)
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
    return [Figure(row, column, p, max(0.0, middle - half), min(1.0, middle + half), n, **target)]


def mean(row: str, column: str, values: Sequence[float], unit: str = "seconds", **target: Any) -> list[Figure]:
    """The mean of errors in seconds, or of shares, with its normal interval; no figure for fewer than two."""
    if len(values) < 2:
        return []
    value = statistics.fmean(values)
    half = _Z * statistics.stdev(values) / math.sqrt(len(values))
    return [Figure(row, column, value, max(0.0, value - half), value + half, len(values), unit, **target)]
