"""Contexts of all tokens in CONDITIONING, for models that have layers for each kind of context.

One tensor holds the tokens of several contexts, concatenated, so that stock nodes apply to all of them. The options of
the conditioning hold the layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...codi_backend.checks.inputs import as_embedding_tokens
from ...codi_backend.conditioning.context import Context, MixedContext
from ...codi_backend.models.diffuser import Contexts, draw_contexts
from ...codi_backend.models.noise_schedule import STEPS
from .conditioning_inputs import one_prompt

# Keys in the options of a conditioning: `Shares`, and the tokens that replace the others for text streams.
KEY, FOR_TEXT = "codi_contexts", "codi_tokens_for_text"


@dataclass(frozen=True)
class Share:
    """The kind, weight and number of tokens of a context; None counts all remaining tokens."""

    kind: str
    ratio: float = 1.0
    count: int | None = None


@dataclass(frozen=True)
class Shares:
    """The contexts of a conditioning in the order of their tokens, and how they are mixed.

    The last context has all remaining tokens, so that the stock ConditioningConcat appends tokens to it.
    """

    contexts: tuple[Share, ...]
    mixing: str = "attention"

    def split(self, tokens: Tensor) -> list[Tensor]:
        """The tokens ``[B, L, D]`` of each context. `ValueError` without an input's name if there are too few."""
        counts = [share.count for share in self.contexts[:-1]]
        if (rest := tokens.shape[1] - sum(counts)) < 1:
            raise ValueError(
                f"{tokens.shape[1]} tokens are too few for {len(self.contexts)} contexts; connect the mixture as it is."
            )
        return list(tokens.split([*counts, rest], 1))

    def given(self, tokens: Tensor) -> Contexts:
        """The contexts as an argument of the diffuser."""
        return [(share.kind, own, share.ratio) for share, own in zip(self.contexts, self.split(tokens))]

    def draw(self, layers: int, seed: int, timestep: float) -> list[int] | None:
        """For mixing by layer, the context of each layer: a new draw for each step, shared by its predictions."""
        if self.mixing != "layer":
            return None
        generator = torch.Generator().manual_seed((seed * STEPS + int(timestep)) % 2**63)
        return draw_contexts([share.ratio for share in self.contexts], layers, generator)


def to_conditioning(mixed: MixedContext, known: int) -> list:
    """The CONDITIONING of the first `known` contexts, with the unconditional tokens of the others."""
    tokens, for_text = ([own for _, own, _ in mixed.given(output, known)] for output in ("image", "text"))
    counts = [*(own.shape[1] for own in tokens[:-1]), None]
    shares = tuple(Share(c.kind, ratio, count) for c, ratio, count in zip(mixed.contexts, mixed.ratios, counts))
    options = {KEY: Shares(shares, mixed.mixing)}
    if any(context.unconditional_for_text is not None for context in mixed.contexts[known:]):
        options[FOR_TEXT] = torch.cat(for_text, 1)
    return [[torch.cat(tokens, 1), options]]


def conditionings(context: Context | MixedContext) -> tuple[list, list]:
    """The CONDITIONING of a context, and its unconditional one."""
    mixed = context if isinstance(context, MixedContext) else MixedContext((context,), (1.0,))
    return to_conditioning(mixed, len(mixed.contexts)), to_conditioning(mixed, 0)


def single(name: str, conditioning) -> tuple[Tensor, dict]:
    """Tokens and options of a CONDITIONING of one context. `ValueError` about the input `name` if it is none."""
    tokens, options = _only(name, conditioning)
    if len(options[KEY].contexts) > 1:
        raise ValueError(f"{name}: this is a mixture already; connect its contexts one by one.")
    return tokens, options


def to_contexts(name: str, positive, other: str, negative) -> MixedContext:
    """The contexts of two CONDITIONINGs, as `conditionings` makes them, from inputs of these names.

    `ValueError` about one of the inputs if it holds no context, or if the two do not match.
    """
    (tokens, options), (unconditional, other_options) = _only(name, positive), _only(other, negative)
    shares, others = options[KEY].contexts, other_options[KEY].contexts
    if [share.kind for share in shares] != [share.kind for share in others]:
        raise ValueError(f"{other}: this holds other contexts than {name}; connect both outputs of the same node.")
    parts = [_split(name, options[KEY], tokens), _split(other, other_options[KEY], unconditional)]
    if FOR_TEXT in other_options:
        parts.append(_split(other, other_options[KEY], other_options[FOR_TEXT]))
    contexts = tuple(Context(share.kind, *own) for share, *own in zip(shares, *parts))
    return MixedContext(contexts, tuple(share.ratio for share in shares), options[KEY].mixing)


def _only(name: str, conditioning) -> tuple[Tensor, dict]:
    tokens, options = one_prompt(conditioning, name, "connect one context")
    if KEY not in options:
        raise ValueError(f"{name}: this is a prompt, not a context; connect CoDi Context (Text) or (Image).")
    if FOR_TEXT in options:
        as_embedding_tokens(options[FOR_TEXT], f"{name}: this context")
    return tokens, options


def _split(name: str, shares: Shares, tokens: Tensor) -> list[Tensor]:
    try:
        return shares.split(tokens)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
