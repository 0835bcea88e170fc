"""The random numbers of sampling: starting noise of each stream, noise of stochastic samplers, start latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..modalities import modality

MAX_CANDIDATES = 16
MAX_RESULTS = 2**16  # seeds between those of two candidates of one result


def mean_latent(means: Mapping[str, Sequence[float]], name: str) -> Tensor:
    """Mean of the scaled latents of a modality, ``[C, 1, ...]``; `means` as in `DiffuserConfig.latent_means`.

    The schedule's last noise level leaves 7 % of a latent (square root of `alphas_cumprod`). A network has never seen
    noise without that share. So sampling begins with the mean's share (the "signal leak" of Everaert et al., WACV
    2024).
    """
    values = torch.tensor(means.get(name, (0.0,)), dtype=torch.float32)
    return values.reshape(-1, *[1] * (modality(name).latent_rank - 2))


def stream_noise(shape: tuple[int, ...], seed: int, name: str, first: int = 0, num_candidates: int = 1) -> Tensor:
    """Starting noise of one stream: float32 ``[num_candidates * B, ...]`` on the CPU for ``shape = (B, ...)``.

    Every sample of every modality has a generator of its own, seeded by the seed, the modality and the number of the
    sample (`first` plus its index in the batch). Neither another stream nor another batch size changes it. Every
    candidate of a sample has a generator of its own as well; the first candidates of all samples come first.
    """
    generators = _candidates(shape[0], seed, name, 0, first, num_candidates)
    return torch.stack([torch.randn(shape[1:], generator=g) for g in generators])


def step_generators(count: int, seed: int, name: str, num_candidates: int = 1) -> list[torch.Generator]:
    """Generators on the CPU of the noise that a stochastic sampler adds to `count` samples of a stream.

    Each sample and candidate has its own, other than that of `stream_noise`.
    """
    return _candidates(count, seed, name, 1, 0, num_candidates)


def _candidates(count: int, seed: int, name: str, use: int, first: int, number: int) -> list[torch.Generator]:
    firsts = (first + candidate * MAX_RESULTS for candidate in range(number))
    return [generator for start in firsts for generator in _generators(count, seed, name, use, start)]


def _generators(count: int, seed: int, name: str, use: int, first: int) -> list[torch.Generator]:
    """A generator for each sample of a stream; `use` separates starting noise (0) from the steps' noise (1)."""
    stream = modality(name).stream + 8 * use
    seeds = (((seed * 16 + stream) * MAX_CANDIDATES * MAX_RESULTS) + first + i for i in range(count))
    return [torch.Generator().manual_seed(_folded(s)) for s in seeds]


def _folded(number: int) -> int:
    """A number in 32 bits: a CPU generator ignores the other bits of its seed."""
    high, low = divmod(number, 2**32)
    return low ^ (high * 0x9E3779B1 % 2**32)  # an odd factor keeps different high parts different
