"""The noise levels of models with different conventions, and latents brought from one convention to another.

Notation: clean latents x0, noise n of standard deviation 1. Models of the kinds EPS, V and EDM take x0 + sigma * n.
Flow models take (1 - t) * x0 + t * n, and ComfyUI calls t their sigma. Two latents are at one noise level if their
ratios of noise to clean latents are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_sampling
import torch
from torch import Tensor

# Relative; schedules are computed in single precision.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class NoiseConvention:
    """How a model's noisy latents are made of clean latents and noise.

    Attributes
    ----------
    flow : bool
        Whether sigma is the t of a flow model.
    data : float
        Standard deviation that the model expects of clean latents.
    noise : float
        Standard deviation of a flow model's noise.
    """

    flow: bool
    data: float = 1.0
    noise: float = 1.0

    @classmethod
    def of(cls, model_sampling) -> NoiseConvention:
        """The convention of one of ComfyUI's model samplings."""
        if isinstance(model_sampling, comfy.model_sampling.CONST):
            return cls(flow=True, noise=getattr(model_sampling, "noise_scale", 1.0))
        return cls(flow=False, data=float(getattr(model_sampling, "sigma_data", 1.0)))

    def level(self, sigma: Tensor) -> Tensor:
        """The ratio of noise to clean latents, 0 to infinity."""
        return self.noise * sigma / (1 - sigma) if self.flow else sigma / self.data

    def sigma(self, level: Tensor) -> Tensor:
        """The inverse of `level`."""
        return 1 / (1 + self.noise / level) if self.flow else level * self.data

    def share(self, sigma: Tensor) -> Tensor:
        """The factor of clean latents in noisy ones."""
        return 1 - sigma if self.flow else torch.ones_like(sigma)

    def spread(self, sigma: Tensor) -> Tensor:
        """The standard deviation of noisy latents."""
        noise = self.noise * sigma if self.flow else sigma
        return torch.hypot(self.data * self.share(sigma), noise)


def sigmas(values: Tensor, source: NoiseConvention, target: NoiseConvention, sigma_max: float) -> Tensor:
    """The sigmas of the same noise levels in another convention, at most `sigma_max`.

    Sigmas of the same convention within the range stay as they are.
    """
    if source != target:
        return target.sigma(source.level(values)).clamp(max=sigma_max)
    return values.clamp(max=sigma_max) if float(values.max()) > sigma_max * (1 + TOLERANCE) else values


def translate(
    latent: Tensor, sigma: Tensor, source: NoiseConvention, target: NoiseConvention, sigma_max: float
) -> tuple[Tensor, Tensor]:
    """A noisy latent ``[B, ...]`` at `sigma` ``[B]``, and its sigma, in another convention.

    Noise beyond `sigma_max`, the largest that the target model knows, becomes `sigma_max`. The latent is then given the
    standard deviation that the model expects there.
    """
    result = sigmas(sigma, source, target, sigma_max)
    if result is sigma:
        return latent, sigma
    return latent * _per_sample(target.spread(result) / source.spread(sigma), latent), result


def translate_back(
    latent: Tensor, own: Tensor, sigma: Tensor, source: NoiseConvention, target: NoiseConvention
) -> Tensor:
    """The inverse of `translate` for the noisy latent: from `own` of the target to `sigma` of the source."""
    if source == target and torch.equal(own, sigma):
        return latent
    return latent * _per_sample(source.spread(sigma) / target.spread(own), latent)


def _per_sample(values: Tensor, latent: Tensor) -> Tensor:
    """Numbers ``[B]`` in the shape that multiplies ``[B, ...]``."""
    return values.reshape(-1, *[1] * (latent.ndim - 1))
