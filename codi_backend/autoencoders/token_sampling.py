"""Choosing the next token of a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenSampling:
    """How tokens are drawn; the released code draws from the whole distribution at temperature 1.

    Attributes
    ----------
    temperature : float
        Below 1 the likelier tokens are preferred, above 1 the less likely.
    top_k : int
        Draw from that many of the likeliest tokens only; 0 for all.
    top_p : float
        Draw from the fewest likeliest tokens that have this probability together; 1 for all.
    greedy : bool
        Always take the likeliest token.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"The temperature {self.temperature} is out of range: choose a positive number.")
        if self.top_k < 0:
            raise ValueError(f"top_k {self.top_k} is out of range: choose a number of tokens, or 0 for all.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is out of range: choose above 0, and at most 1.")

    def pick(self, logits: Tensor, generator: torch.Generator) -> int:
        """Token id by float32 logits ``[V]`` on the CPU; `generator` is not used if greedy."""
        if self.greedy:
            return int(logits.argmax())
        logits = logits / self.temperature
        if 0 < self.top_k < len(logits):
            logits = logits.masked_fill(logits < logits.topk(self.top_k).values[-1], -torch.inf)
        if self.top_p < 1:
            ordered, order = logits.softmax(-1).sort(descending=True)
            logits = logits.clone()
            logits[order[ordered.cumsum(-1) - ordered > self.top_p]] = -torch.inf
        return int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
