"""The noise schedule, the forward process and the noise of each stream (SPEC section 1)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .modality import modality

STEPS = 1000
SETTLED = STEPS / 2  # the timestep below which streams no longer settle what they show
MAX_CANDIDATES = 16
MAX_RESULTS = 2**16  # whose numbers lie between those of a result's candidates
BETA_START, BETA_END = 0.00085, 0.012  # linear in their square roots


def alphas_cumprod() -> Tensor:
    """Share of the signal's variance that is left after each of the 1000 steps: float32 ``[1000]``."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """Noise clean latents ``[B, ...]`` to `timesteps` ``[B]``; `alphas` is what `alphas_cumprod` gives."""
    a = alphas[timesteps].reshape(-1, *[1] * (latents.ndim - 1))
    return a.sqrt() * latents + (1 - a).sqrt() * noise


@functools.cache
def _ratios(device: torch.device) -> Tensor:
    alphas = alphas_cumprod().double()
    return ((1 - alphas) / alphas).sqrt().float().to(device)


def noise_ratio(timesteps: Tensor) -> Tensor:
    """Noise over signal at `timesteps` ``[B]``; between whole ones linear, as the Euler sampler has it."""
    table = _ratios(timesteps.device)
    low = timesteps.long().clamp(0, STEPS - 2)
    return torch.lerp(table[low], table[low + 1], (timesteps - low).float())


def eps_from_v(v: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """The noise in `noisy` ``[B, ...]`` by a prediction of v = sqrt(a) noise - sqrt(1 - a) latents.

    Timesteps ``[B]`` may be fractional, see `noise_ratio`.
    """
    ratio = noise_ratio(timesteps.to(noisy.device)).reshape(-1, *[1] * (v.ndim - 1))
    return ((v + ratio * noisy) / (1 + ratio**2).sqrt()).to(v.dtype)


def clean_latent(eps: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """The clean latent in `noisy` ``[B, ...]`` by a prediction of its noise; `timesteps` as for `eps_from_v`."""
    ratio = noise_ratio(timesteps.to(noisy.device)).reshape(-1, *[1] * (noisy.ndim - 1))
    return ((1 + ratio**2).sqrt() * noisy - ratio * eps).to(noisy.dtype)


def mean_latent(means: Mapping[str, Sequence[float]], name: str) -> Tensor:
    """What scaled latents of a modality are on average, ``[C, 1, ...]``; `means` as in `DiffuserConfig.latent_means`.

    The schedule's last noise level leaves 7 % of a latent (square root of `alphas_cumprod`). A latent's hundreds of
    values make even that plain to a network, and noise alone, which lacks it, tells it something false. So sampling
    begins with the mean's share (the "signal leak" of Everaert et al., WACV 2024).
    """
    values = torch.tensor(means.get(name, (0.0,)), dtype=torch.float32)
    return values.reshape(-1, *[1] * (modality(name).latent_rank - 2))


def stream_noise(shape: tuple[int, ...], seed: int, name: str, first: int = 0, candidates: int = 1) -> Tensor:
    """Starting noise of one stream, ``shape = (B, ...)``, float32 on the CPU; ``[candidates * B, ...]``.

    Every sample of every modality has a generator of its own, derived from the seed, the modality and the sample's
    number (`first` plus its place in the batch): neither another stream nor another batch size changes it. So has every
    candidate of a sample; of all samples the first candidate comes first.
    """
    generators = _candidates(shape[0], seed, name, 0, first, candidates)
    return torch.stack([torch.randn(shape[1:], generator=g) for g in generators])


def step_generators(count: int, seed: int, name: str, candidates: int = 1) -> list[torch.Generator]:
    """Where `count` samples of a stream get the noise that a stochastic sampler adds, on the CPU.

    They are each sample's, and each candidate's, own, as those of `stream_noise` are, and others than these.
    """
    return _candidates(count, seed, name, 1, 0, candidates)


def _candidates(count: int, seed: int, name: str, use: int, first: int, candidates: int) -> list[torch.Generator]:
    numbers = (first + candidate * MAX_RESULTS for candidate in range(candidates))
    return [generator for number in numbers for generator in _generators(count, seed, name, use, number)]


def _generators(count: int, seed: int, name: str, use: int, first: int = 0) -> list[torch.Generator]:
    """A generator for each sample of a stream; `use` tells starting noise (0) from the steps' (1)."""
    stream = modality(name).stream + 8 * use
    numbers = (((seed * 16 + stream) * MAX_CANDIDATES * MAX_RESULTS) + first + i for i in range(count))
    return [torch.Generator().manual_seed(_folded(number)) for number in numbers]


def _folded(number: int) -> int:
    """A number in 32 bits, which is all that a generator on the CPU heeds of its seed."""
    high, low = divmod(number, 2**32)
    return low ^ (high * 0x9E3779B1 % 2**32)  # an odd factor: no two high parts become the same
