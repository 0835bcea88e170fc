"""Transformers that networks share, one set per kind of context, and the slots that they fill (SPEC_VD sections 2, 3).

A network of such a diffuser has slots where others have transformers of their own. The sets belong to the diffuser,
which lends a network those that the contexts of a call need.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .factory import Factory
from .layers import Transformer

Contexts = Sequence[tuple[str, Tensor, float]]
"""What a call is conditioned on: kinds of context, their tokens ``[B, L, D]``, and how they are mixed."""

Lent = Sequence[Sequence[tuple[Transformer, Tensor, float]]]
"""For every slot, the transformers that fill it, with the tokens of each and its share of the result."""


class Slot(nn.Module):
    """The place of a transformer that the diffuser lends; ``h [N, C, H, W]`` keeps its shape.

    Each transformer works on the same `h`, and the results are added with their shares, which sum to 1: softmaxes are
    separate, nothing is concatenated.
    """

    number: int

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, h: Tensor, lent: Lent) -> Tensor:
        total = None
        for transformer, tokens, share in lent[self.number]:
            part = transformer(h, ((tokens, 1.0),))
            part = part if share == 1 else share * part
            total = part if total is None else total + part
        return total


class ContextSet(nn.ModuleList):
    """The transformers for one kind of context, one for each slot of a network."""

    def __init__(self, widths: Sequence[int], context_dim: int, heads: int, make: Factory) -> None:
        super().__init__(Transformer(channels, context_dim, heads, make) for channels in widths)


def draw_contexts(ratios: Sequence[float], slots: int, generator: torch.Generator) -> list[int]:
    """For every slot, the number of one context, drawn by the ratios (SPEC_VD section 3, mixing "layer")."""
    weights = torch.tensor(ratios, dtype=torch.float64)
    return torch.multinomial(weights, slots, replacement=True, generator=generator).tolist()


def lend(sets: nn.ModuleDict, contexts: Contexts, slots: int, drawn: Sequence[int] | None = None) -> Lent:
    """Fill every slot: with all contexts by their ratios, or with the one whose number is `drawn` for it.

    Ratios are divided by their sum. A context with ratio 0 is left out, which changes nothing.
    """
    total = sum(ratio for *_, ratio in contexts)
    shares = [(sets[kind], tokens, ratio / total) for kind, tokens, ratio in contexts]
    if drawn is None:
        return [[(layers[i], tokens, share) for layers, tokens, share in shares if share] for i in range(slots)]
    return [[(shares[choice][0][i], shares[choice][1], 1.0)] for i, choice in enumerate(drawn)]
