"""Contexts of many tokens, and mixtures of them, for diffusers with layers per kind of context (SPEC_VD section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks.inputs import as_embedding_tokens
from ..checks.numbers import require_shares
from ..models.diffuser.shared_attention import Contexts

MIXINGS = ("attention", "layer")


@dataclass(frozen=True)
class Context:
    """The tokens of a batch of texts or images that condition a diffuser.

    Attributes
    ----------
    kind : {"text", "image"}
        Decides which of the diffuser's transformers read it.
    tokens : Tensor
        ``[B, L, D]``.
    unconditional : Tensor
        ``[B, L, D]``: the condition of the unconditional branch.
    unconditional_for_text : Tensor or None
        The same for outputs that are texts, if it is another (SPEC_VD section 4).
    """

    kind: str
    tokens: Tensor
    unconditional: Tensor
    unconditional_for_text: Tensor | None = None

    def check(self) -> None:
        """`ValueError` for tokens that cannot be right."""
        for tokens in (self.tokens, self.unconditional, self.unconditional_for_text):
            if tokens is not None:
                as_embedding_tokens(tokens, f"The {self.kind} context")

    def to(self, place: Tensor) -> Context:
        """The same on the device and in the precision of a tensor."""
        other = self.unconditional_for_text
        return Context(
            self.kind,
            self.tokens.to(place),
            self.unconditional.to(place),
            None if other is None else other.to(place),
        )

    def without(self, output: str) -> Tensor:
        """The unconditional tokens for a modality that is generated."""
        other = self.unconditional_for_text if output == "text" else None
        return self.unconditional if other is None else other

    def expand(self, count: int) -> Context:
        """The same context for `count` results; it must be one context so far."""
        if len(self.tokens) not in (1, count):
            raise ValueError(
                f"A batch of {len(self.tokens)} contexts cannot make {count} results: give one, or so many."
            )
        other = self.unconditional_for_text
        return Context(
            self.kind,
            self.tokens.expand(count, -1, -1),
            self.unconditional.expand(count, -1, -1),
            None if other is None else other.expand(count, -1, -1),
        )


@dataclass(frozen=True)
class MixedContext:
    """Contexts that guide one run together; `mix` makes them.

    Attributes
    ----------
    contexts : tuple of Context
        Of one batch size.
    ratios : tuple of float
        The share of each; they sum to 1.
    mixing : {"attention", "layer"}
        See `mix`.
    """

    contexts: tuple[Context, ...]
    ratios: tuple[float, ...]
    mixing: str = "attention"

    @property
    def tokens(self) -> Tensor:
        """Those of the first context, which has the batch size, device and dtype of all."""
        return self.contexts[0].tokens

    def check(self) -> None:
        """`ValueError` for tokens that cannot be right."""
        for context in self.contexts:
            context.check()

    def to(self, place: Tensor) -> MixedContext:
        """The same on the device and in the precision of a tensor."""
        return MixedContext(tuple(context.to(place) for context in self.contexts), self.ratios, self.mixing)

    def given(self, output: str, known: int) -> Contexts:
        """The contexts of a call for an output: the first `known` ones, and of the others the unconditional tokens."""
        return [
            (context.kind, context.tokens if i < known else context.without(output), ratio)
            for i, (context, ratio) in enumerate(zip(self.contexts, self.ratios))
        ]

    def expand(self, count: int) -> MixedContext:
        """The same contexts for `count` results."""
        return MixedContext(tuple(context.expand(count) for context in self.contexts), self.ratios, self.mixing)

    def interpolate(self, scales: Sequence[float]) -> float:
        """One guidance scale from one for each context, by the ratios, as the original does (SPEC_VD section 5)."""
        if len(scales) != len(self.contexts):
            raise ValueError(f"There are {len(scales)} scales for {len(self.contexts)} contexts: give one for each.")
        return sum(scale * ratio for scale, ratio in zip(scales, self.ratios))


def concatenate(contexts: Sequence[Context]) -> Context:
    """Several contexts of one kind as one with the tokens of all, over which one softmax runs (SPEC_VD section 5).

    `ValueError` for no contexts, different kinds or batch sizes (1 goes with any), or tokens that cannot be right.
    """
    count = _common_batch(contexts)
    if len(kinds := {context.kind for context in contexts}) > 1:
        raise ValueError(f"Contexts of {' and '.join(sorted(kinds))} cannot be concatenated: mix them.")
    contexts = [context.expand(count) for context in contexts]
    other = None
    if any(context.unconditional_for_text is not None for context in contexts):
        other = torch.cat([context.without("text") for context in contexts], 1)
    tokens, unconditional = (torch.cat([getattr(c, name) for c in contexts], 1) for name in ("tokens", "unconditional"))
    return Context(contexts[0].kind, tokens, unconditional, other)


def mix(contexts: Sequence[tuple[Context, float]], mixing: str = "attention") -> MixedContext:
    """Let several contexts guide one run (SPEC_VD section 3).

    Parameters
    ----------
    contexts : sequence of (Context, float)
        With their ratios, which are divided by their sum; several of one kind too. Of batch size 1, a context goes with
        any.
    mixing : {"attention", "layer"}
        Every transformer of the diffuser averages what the contexts give by their ratios; or each is given, at every
        step anew, one context drawn by them.

    Raises
    ------
    ValueError
        For no contexts, ratios that are negative or all zero, batch sizes that differ, or tokens that cannot be right.
    """
    if mixing not in MIXINGS:
        raise ValueError(f"There is no mixing {mixing!r}; choose from {', '.join(MIXINGS)}.")
    count = _common_batch([context for context, _ in contexts])
    ratios = require_shares([ratio for _, ratio in contexts], "ratios")
    return MixedContext(
        tuple(context.expand(count) for context, _ in contexts), tuple(r / sum(ratios) for r in ratios), mixing
    )


def _common_batch(contexts: Sequence[Context]) -> int:
    if not contexts:
        raise ValueError("There is no context: give at least one.")
    for context in contexts:
        context.check()
    sizes = {len(context.tokens) for context in contexts}
    if len(sizes - {1}) > 1:
        raise ValueError(f"The contexts have batch sizes {sorted(sizes)}: make them equal, or 1.")
    return max(sizes)
