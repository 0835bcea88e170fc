"""Encoded prompts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
