"""Cross-attention transformers that networks share, one set per kind of context (SPEC_VD sections 2 and 3).

Networks of such a diffuser have `SharedCrossAttention` layers without weights. The diffuser owns the sets of
transformers and passes those of a call's contexts to the networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layer_factory import LayerFactory
from .layers import Transformer

Contexts = Sequence[tuple[str, Tensor, float]]
"""The conditioning of a call: for each context its kind, its tokens ``[B, L, D]`` and its mixing ratio."""

SharedLayers = Sequence[Sequence[tuple[Transformer, Tensor, float]]]
"""For each shared cross-attention layer: its transformers, each with its tokens and its weight in the output."""


class SharedCrossAttention(nn.Module):
    """Cross-attention by transformers that the diffuser owns; ``h [N, C, H, W]`` keeps its shape.

    Each transformer takes the same `h`, and the weighted outputs are added; the weights sum to 1. The contexts have
    separate softmaxes.

    Attributes
    ----------
    number : int
        Place of this layer among the shared ones of its network, in execution order.
    """

    number: int

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, h: Tensor, shared_layers: SharedLayers) -> Tensor:
        total = None
        for transformer, tokens, weight in shared_layers[self.number]:
            part = transformer(h, ((tokens, 1.0),))
            part = part if weight == 1 else weight * part
            total = part if total is None else total + part
        return total


class ContextSet(nn.ModuleList):
    """The transformers for one kind of context, one per shared cross-attention layer of a network."""

    def __init__(self, widths: Sequence[int], context_dim: int, heads: int, factory: LayerFactory) -> None:
        super().__init__(Transformer(channels, context_dim, heads, factory) for channels in widths)


def draw_contexts(ratios: Sequence[float], count: int, generator: torch.Generator) -> list[int]:
    """Draw a context's index for each of `count` shared layers by the ratios (SPEC_VD section 3, mixing "layer")."""
    weights = torch.tensor(ratios, dtype=torch.float64)
    return torch.multinomial(weights, count, replacement=True, generator=generator).tolist()


def assign_shared(
    sets: nn.ModuleDict, contexts: Contexts, count: int, drawn: Sequence[int] | None = None
) -> SharedLayers:
    """Assign transformers to `count` shared layers: of all contexts, or of the one whose index `drawn` has for a layer.

    Weights are the ratios divided by their sum. A context with ratio 0 is skipped, which does not change the output.
    """
    total = sum(ratio for *_, ratio in contexts)
    weighted = [(sets[kind], tokens, ratio / total) for kind, tokens, ratio in contexts]
    if drawn is None:
        return [[(layers[i], tokens, w) for layers, tokens, w in weighted if w] for i in range(count)]
    return [[(weighted[choice][0][i], weighted[choice][1], 1.0)] for i, choice in enumerate(drawn)]
