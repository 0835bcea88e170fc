"""Training a coupler on pairs of clean latents, without any diffuser (docs/coupling.md)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..config.coupler import LatentSpace
from ..models.coupler import Coupler, Tokens, aligned
from .loop import Stage

# Logarithms of noise levels, relative to the latents' deviation, are normally distributed. Their mean is higher with
# videos, whose content is settled at higher levels, since frames have it in common.
_LOG_MEAN, _LOG_MEAN_VIDEO, _LOG_DEVIATION = 0.3, 1.0, 1.2
_LOWEST, _HIGHEST = 0.02, 30.0
# Share of the groups in which one stream is clean, as a held stream is.
_HELD = 0.4
_TIME_WEIGHT = 0.2
_VIDEO_EVERY, _IMAGES_PER_VIDEO = 3, 4  # steps between batches with videos, and how much smaller these are
HELD_OUT = 64  # pairs that are kept from training, among which retrieval is measured
RETRIEVAL_LEVELS = (0.1, 0.3, 1.0, 2.0, 4.0)


class CouplerStage(Stage):
    """Trains a coupler by InfoNCE on noisy pairs.

    A batch is taken in groups of up to `group` rows. The rows of a group have one common noise level, and are the
    negatives of each other. So the critic estimates the log density ratio at that level, up to terms of one stream.
    The loss is the mean over all pairs of streams. Where there are two streams besides video, video takes part in
    every third batch only, and batches with it are smaller.

    Parameters
    ----------
    coupler : Coupler
    latents : dict of str to Tensor
        ``[N, C, ...]`` by the name of the space: clean latents in the units of the autoencoder. Equal rows belong
        together; a stream may have fewer rows than another.
    """

    name = "coupler"

    def __init__(self, coupler: Coupler, latents: Mapping[str, Tensor], group: int = 128):
        super().__init__()
        self.coupler, self.latents, self.group = coupler, dict(latents), group
        self.index = {space.name: i for i, space in enumerate(coupler.spaces)}
        self.quick = [name for name in latents if coupler.spaces[self.index[name]].axes != "THW"]

    def batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """The clean latents of `size` random rows; fewer with videos."""
        names = self.quick if len(self.quick) > 1 and step % _VIDEO_EVERY else list(self.latents)
        if len(names) > len(self.quick):
            size = max(2, size // _IMAGES_PER_VIDEO)
        count = min(len(self.latents[name]) for name in names)
        rows = torch.from_numpy(np.random.default_rng((seed, step)).integers(0, count, size))
        return {name: self.latents[name][rows].float() for name in names}

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        size = len(next(iter(batch.values())))
        groups = max(1, size // self.group)
        while size % groups:
            groups -= 1
        log_mean = _LOG_MEAN if batch.keys() <= set(self.quick) else _LOG_MEAN_VIDEO
        tokens = {}
        for (name, clean), level in zip(batch.items(), self._levels(len(batch), size, groups, log_mean, generator)):
            sigma = level.to(clean.device) * self.coupler.spaces[self.index[name]].std
            noise = torch.randn(clean.shape, generator=generator).to(clean.device)
            noisy = clean + sigma.reshape(-1, *[1] * (clean.ndim - 1)) * noise
            found = self.coupler.tokens(self.index[name], noisy, sigma)
            tokens[name] = Tokens(*(t if t is None else t.unflatten(0, (groups, -1)) for t in found))
        losses, figures = [], {}
        for a, b in itertools.combinations(tokens, 2):
            logits = self.coupler.logits(tokens[a], tokens[b])
            target = torch.arange(logits.shape[-1], device=logits.device).repeat(groups)
            losses.append(_both_ways(logits, target))
            figures[f"{a}-{b}"] = float((logits.detach().argmax(-1).flatten() == target).float().mean())
            if all(tokens[name].over_time is not None for name in (a, b)):
                losses[-1] = losses[-1] + _TIME_WEIGHT * self._moments(tokens[a], tokens[b])
        return sum(losses) / len(losses), figures

    def _levels(self, streams: int, size: int, groups: int, log_mean: float, generator: torch.Generator) -> Tensor:
        """Noise levels ``[streams, size]``, equal within a group; that of one stream may be 0.

        Drawn for every row and taken from the first of each group, since noise has samples on its first axis.
        """
        drawn = torch.randn((size,), generator=generator).reshape(groups, -1)[:, :1]
        which = torch.rand((size,), generator=generator).reshape(groups, -1)[:, :1]
        level = (log_mean + _LOG_DEVIATION * drawn).exp().clamp(_LOWEST, _HIGHEST)
        clean = (which * streams / _HELD).long()  # the number of a stream, or a higher number for none
        noisy = torch.stack([clean != i for i in range(streams)])
        return (level * noisy).expand(streams, groups, size // groups).flatten(1)

    def _moments(self, a: Tokens, b: Tokens) -> Tensor:
        """InfoNCE among the moments of each sample, which makes tokens over time specific to their moment."""
        first, second = (F.normalize(t.flatten(0, -3), dim=-1) for t in aligned(a, b))
        logits = 10 * first @ second.transpose(1, 2)
        return _both_ways(logits, torch.arange(logits.shape[-1], device=logits.device).repeat(len(logits)))


def _both_ways(logits: Tensor, target: Tensor) -> Tensor:
    both = (F.cross_entropy(each.flatten(0, 1), target) for each in (logits, logits.transpose(1, 2)))
    return sum(both) / 2


def describe(name: str, latents: Tensor, axes: str) -> LatentSpace:
    """The latent space of clean latents ``[N, C, ...]`` in the units of the autoencoder."""
    values = latents[: 1 << 12].double()
    mean = values.mean([0, *range(2, values.ndim)])
    std = float((values - mean.reshape(1, -1, *[1] * (values.ndim - 2))).std())
    return LatentSpace(name, latents.shape[1], axes, tuple(latents.shape[2:]), tuple(mean.tolist()), std)


@torch.no_grad()
def retrieval(
    coupler: Coupler, latents: Mapping[str, Tensor], levels: Sequence[float] = RETRIEVAL_LEVELS, seed: int = 0
) -> list[dict[str, float]]:
    """How often the right partner among N is found, by noise level.

    Parameters
    ----------
    latents : dict of str to Tensor
        Two streams of N held-out pairs, ``[N, C, ...]``.
    levels : sequence of float
        Noise levels of both, relative to the latents' deviation.

    Returns
    -------
    list of dict
        ``{"sigma", "accuracy"}``; accuracy is the mean of both directions.
    """
    index = {space.name: i for i, space in enumerate(coupler.spaces)}
    device = coupler.log_scales.device
    rows = []
    for level in levels:
        generator = torch.Generator().manual_seed(seed)
        tokens = []
        for name, clean in latents.items():
            sigma = torch.full((len(clean),), level * coupler.spaces[index[name]].std)
            noise = torch.randn(clean.shape, generator=generator)
            noisy = clean.float() + sigma.reshape(-1, *[1] * (clean.ndim - 1)) * noise
            tokens.append(coupler.tokens(index[name], noisy.to(device), sigma.to(device)))
        logits = coupler.logits(*tokens)
        target = torch.arange(len(logits), device=device)
        right = [(each.argmax(-1) == target).float().mean() for each in (logits, logits.T)]
        rows.append({"sigma": level, "accuracy": float(sum(right)) / 2})
    return rows
