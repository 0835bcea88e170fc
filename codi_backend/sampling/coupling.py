"""The correction that a coupler makes to denoised predictions of streams, whatever models predict them.

The joint score is the sum of the scores of the single streams and the gradient of the log density ratio. With
``x = clean + sigma * noise``, a denoised prediction is ``x + sigma^2 * score`` (Tweedie), so the ratio adds
``sigma^2 * gradient`` to it. A weight above 1 sharpens agreement, as classifier guidance does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..models.coupler import Tokens


class Critic(Protocol):
    """What `corrections` needs of a coupler: a `models.coupler.Coupler`, or a model's `EnvironmentCoupler`."""

    def tokens(self, space: int, latents: Tensor, sigma: Tensor) -> Tokens: ...

    def score(self, a: Tokens, b: Tokens) -> Tensor: ...


def ratios(coupler: Critic, spaces: Sequence[int], latents: Sequence[Tensor]) -> Tensor:
    """Log density ratio of clean latents of two streams or more, ``[B]``, summed over pairs of streams.

    Parameters
    ----------
    spaces : sequence of int
        Index of each stream's latent space, see `Coupler.match`.
    latents : sequence of Tensor
        ``[B, C, ...]``, in the units of the autoencoders.
    """
    with torch.no_grad():
        tokens = [coupler.tokens(i, x, torch.zeros(len(x), device=x.device)) for i, x in zip(spaces, latents)]
        return sum(coupler.score(a, b) for a, b in itertools.combinations(tokens, 2))


def corrections(
    coupler: Critic, spaces: Sequence[int], latents: Sequence[Tensor], sigmas: Sequence[float], weight: float = 1.0
) -> list[Tensor]:
    """What to add to the denoised prediction of each stream.

    Parameters
    ----------
    spaces : sequence of int
        Index of each stream's latent space, see `Coupler.match`.
    latents : sequence of Tensor
        ``[B, C, ...]``: clean latents plus sigma times unit noise, in the units of the autoencoders.
    sigmas : sequence of float
        Noise level of each stream in the same units. A held stream has 0: its latents are clean.
    weight : float
        Factor of the correction.

    Returns
    -------
    list of Tensor
        Shaped like `latents`, in the same units; zeros for streams without noise.
    """
    # Samplers run in inference mode, whose tensors cannot have gradients.
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [x.detach().clone().requires_grad_(sigma > 0) for x, sigma in zip(latents, sigmas)]
        noisy = [x for x in inputs if x.requires_grad]
        if len(inputs) < 2 or not noisy:
            return [torch.zeros_like(x) for x in latents]
        tokens = [
            coupler.tokens(space, x, torch.full((len(x),), float(sigma), device=x.device))
            for space, x, sigma in zip(spaces, inputs, sigmas)
        ]
        score = sum(coupler.score(a, b).sum() for a, b in itertools.combinations(tokens, 2))
        gradients = iter(torch.autograd.grad(score, noisy))
        return [
            weight * sigma**2 * next(gradients) if x.requires_grad else torch.zeros_like(x)
            for x, sigma in zip(inputs, sigmas)
        ]
