"""Sampling of the next token of a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...checks.numbers import require_number, require_whole

# Below this, logits overflow (use `greedy` instead); far above 1, all tokens become equally likely.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-6, 1e3
MIN_PROBABILITY = 1e-6
MAX_TOKENS = 1_000_000  # larger than any vocabulary


@dataclass(frozen=True)
class TokenSampling:
    """Sampling settings; the released code samples from the whole distribution at temperature 1.

    Attributes
    ----------
    temperature : float
        Divides the logits: below 1 likely tokens become likelier, above 1 less likely.
    top_k : int
        Sample from this many of the likeliest tokens only; 0 for all.
    top_p : float
        Sample from the smallest set of likeliest tokens with this total probability; 1 for all.
    greedy : bool
        Always take the likeliest token.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False

    def __post_init__(self) -> None:
        require_number(self.temperature, "temperature", MIN_TEMPERATURE, MAX_TEMPERATURE)
        require_whole(self.top_k, "top_k", 0, MAX_TOKENS)
        require_number(self.top_p, "top_p", MIN_PROBABILITY, 1)

    def pick(self, logits: Tensor, generator: torch.Generator) -> int:
        """Sample a token id from float32 logits ``[V]`` on the CPU; `generator` is not used if greedy."""
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
