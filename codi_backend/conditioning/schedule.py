"""Prompts that change over the time of a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..checks.numbers import require_number
from ..modalities import MAX_SECONDS
from .prompt import Prompt, interpolate


@dataclass(frozen=True)
class PromptSchedule:
    """Prompts with the seconds at which they begin to apply; each applies until the next one begins.

    Attributes
    ----------
    prompts : tuple of Prompt
        In order of their starts. Of one batch size B, or of batch size 1.
    starts : tuple of float
        In seconds, ascending; the first is 0.
    """

    prompts: tuple[Prompt, ...]
    starts: tuple[float, ...]

    def check(self) -> None:
        """`ValueError` for embeddings that cannot be right or do not go together."""
        interpolate([(prompt, 1.0) for prompt in self.prompts])

    def to(self, place: Tensor) -> PromptSchedule:
        """The same on the device and in the precision of a tensor."""
        return PromptSchedule(tuple(prompt.to(place) for prompt in self.prompts), self.starts)

    def __len__(self) -> int:
        """The batch size."""
        return max(len(prompt.embedding) for prompt in self.prompts)

    def between(self, begin: float, end: float) -> Prompt:
        """The prompt of a window from `begin` to `end` seconds, see `over`."""
        return self.over([(begin, end)])

    def over(self, intervals: Sequence[tuple[float, float]]) -> Prompt:
        """The prompt of a stretch of time, or of several: a mixture by how long each prompt applies in them."""
        ends = (*self.starts[1:], math.inf)
        shares = [
            sum(max(0.0, min(end, stop) - max(begin, start)) for begin, end in intervals)
            for start, stop in zip(self.starts, ends)
        ]
        if max(shares) < sum(shares):
            return interpolate(list(zip(self.prompts, shares)))
        prompt = self.prompts[shares.index(max(shares))]  # the only one that applies, as it is
        return Prompt(*(e.expand(len(self), -1, -1) for e in (prompt.embedding, prompt.unconditional)))


def schedule(prompts: Sequence[tuple[Prompt, float]]) -> PromptSchedule:
    """A `PromptSchedule` of (prompt, start in seconds) in any order.

    `ValueError` if there is none, if two start together, or if nothing starts at 0.
    """
    if not prompts or not all(isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], Prompt) for p in prompts):
        raise ValueError("prompts: give at least one pair of a prompt and the seconds at which it starts.")
    timed = [(prompt, require_number(start, "prompts: a start", 0, MAX_SECONDS)) for prompt, start in prompts]
    timed.sort(key=lambda pair: pair[1])
    starts = [start for _, start in timed]
    if starts[0] > 0:
        raise ValueError(f"prompts: the first one starts at {starts[0]:g} s; give one that starts at 0.")
    if twice := [start for start, other in zip(starts, starts[1:]) if start == other]:
        raise ValueError(f"prompts: two start at {twice[0]:g} s; mix them with `interpolate`, or give them two times.")
    return PromptSchedule(tuple(prompt for prompt, _ in timed), tuple(starts))
