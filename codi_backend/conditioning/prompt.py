"""Encoded prompts, and mixtures of them (paper section 3.2; SPEC section 2, step 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks.inputs import as_embedding_tokens
from ..checks.numbers import require_shares

METHODS = ("linear", "slerp")


@dataclass(frozen=True)
class Prompt:
    """What a prompt encoder makes of a batch of contents.

    Attributes
    ----------
    embedding : Tensor
        ``[B, 1, D]``, each of length 1.
    unconditional : Tensor
        ``[B, 1, D]``: the same encoder's embedding of nothing, for classifier-free guidance.
    """

    embedding: Tensor
    unconditional: Tensor

    def check(self) -> None:
        """`ValueError` for embeddings that cannot be right."""
        for embedding in (self.embedding, self.unconditional):
            as_embedding_tokens(embedding, "The prompt")

    def to(self, place: Tensor) -> Prompt:
        """The same on the device and in the precision of a tensor."""
        return Prompt(self.embedding.to(place), self.unconditional.to(place))


def interpolate(prompts: Sequence[tuple[Prompt, float]], method: str = "linear") -> Prompt:
    """Mix any number of prompts, several of one modality too.

    Parameters
    ----------
    prompts : sequence of (Prompt, float)
        Prompts of one batch size (or of batch size 1, which goes with any) and their weights, which are divided by
        their sum.
    method : {"linear", "slerp"}
        The weighted mean, as the original does, which is shorter than its parts; or along the sphere, which keeps the
        length: prompts are taken in one after the other, so that with two of them it is the usual slerp.

    Returns
    -------
    Prompt
        The unconditional embeddings are mixed in the same way.

    Raises
    ------
    ValueError
        For no prompts, weights that are negative or all zero, batch sizes or widths that differ, or embeddings that
        cannot be right.
    """
    if method not in METHODS:
        raise ValueError(f"There is no interpolation {method!r}; choose from {', '.join(METHODS)}.")
    if not prompts:
        raise ValueError("There are no prompts to interpolate: give at least one.")
    weights = require_shares([weight for _, weight in prompts], "weights")
    for prompt, _ in prompts:
        prompt.check()
    if len(shapes := {prompt.embedding.shape[1:] for prompt, _ in prompts}) > 1:
        raise ValueError(
            f"The prompts have embeddings {sorted(map(list, shapes))}: encode all with the encoders of one model."
        )
    sizes = {len(prompt.embedding) for prompt, _ in prompts}
    if len(sizes - {1}) > 1:
        raise ValueError(f"The prompts have batch sizes {sorted(sizes)}: make them equal, or 1.")
    mix = _mean if method == "linear" else _along_the_sphere
    return Prompt(
        mix([prompt.embedding for prompt, _ in prompts], weights),
        mix([prompt.unconditional for prompt, _ in prompts], weights),
    )


def _mean(embeddings: list[Tensor], weights: list[float]) -> Tensor:
    return sum(e * (w / sum(weights)) for e, w in zip(embeddings, weights))


def _along_the_sphere(embeddings: list[Tensor], weights: list[float]) -> Tensor:
    mixed, total = embeddings[0], weights[0]
    for embedding, weight in zip(embeddings[1:], weights[1:]):
        total += weight
        mixed = _slerp(mixed, embedding, weight / total if total else 0.0)
    return mixed


def _slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """From a (share 0) to b (share 1); embeddings that nearly agree or oppose are mixed linearly."""
    cosine = torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).clamp(-1, 1)[..., None]
    angle = cosine.acos()
    sine = angle.sin()
    near = sine < 1e-4
    sine = sine.masked_fill(near, 1.0)
    first = torch.where(near, torch.full_like(angle, 1 - share), ((1 - share) * angle).sin() / sine)
    second = torch.where(near, torch.full_like(angle, share), (share * angle).sin() / sine)
    return (first * a.float() + second * b.float()).to(a.dtype)
