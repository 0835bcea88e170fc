"""The noise schedule and the forward process (SPEC section 1)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012  # linear in their square roots


def alphas_cumprod() -> Tensor:
    """Cumulative product of ``1 - beta`` over the 1000 timesteps: float32 ``[1000]`` (SPEC section 1)."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """Add noise to clean latents ``[B, ...]`` at `timesteps` ``[B]``; `alphas` comes from `alphas_cumprod`."""
    a = alphas[timesteps].reshape(-1, *[1] * (latents.ndim - 1))
    return a.sqrt() * latents + (1 - a).sqrt() * noise


@functools.cache
def _ratios(device: torch.device) -> Tensor:
    alphas = alphas_cumprod().double()
    return ((1 - alphas) / alphas).sqrt().float().to(device)


def noise_ratio(timesteps: Tensor) -> Tensor:
    """Noise-to-signal ratio (sigma) at `timesteps` ``[B]``; linear between whole ones, as in the Euler sampler."""
    table = _ratios(timesteps.device)
    low = timesteps.long().clamp(0, STEPS - 2)
    return torch.lerp(table[low], table[low + 1], (timesteps - low).float())


def timestep_of(ratio: Tensor) -> Tensor:
    """The inverse of `noise_ratio`: fractional timesteps at ratios ``[B]``, which are clamped to those of 0 and 999."""
    table = _ratios(ratio.device)
    ratio = ratio.clamp(table[0], table[-1])
    high = torch.searchsorted(table, ratio.contiguous()).clamp(1, STEPS - 1)
    return high - 1 + (ratio - table[high - 1]) / (table[high] - table[high - 1])


def eps_from_v(v: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """Convert a prediction of v = sqrt(a) noise - sqrt(1 - a) latents to the noise in `noisy` ``[B, ...]``.

    Timesteps ``[B]`` may be fractional, see `noise_ratio`.
    """
    ratio = noise_ratio(timesteps.to(noisy.device)).reshape(-1, *[1] * (v.ndim - 1))
    return ((v + ratio * noisy) / (1 + ratio**2).sqrt()).to(v.dtype)


def clean_latent(eps: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """Convert a noise prediction to the clean latent in `noisy` ``[B, ...]``; `timesteps` as for `eps_from_v`."""
    ratio = noise_ratio(timesteps.to(noisy.device)).reshape(-1, *[1] * (noisy.ndim - 1))
    return ((1 + ratio**2).sqrt() * noisy - ratio * eps).to(noisy.dtype)
