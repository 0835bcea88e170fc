"""Best-of-N: of several candidates for a result, keep the one whose streams agree best."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import CoDiConfig, DiffuserConfig
from ..models.diffuser import Diffuser
from ..models.diffuser.environment import pooled, resampled, temporal_channels
from ..models.noise_schedule import STEPS
from .windows import Window

# (timestep, candidates that go on below it). What streams agree on is decided above the first level; overlapping and
# blurred objects show near the end (docs/experiments.md).
PRUNING_SCHEDULE = ((STEPS / 2, 2), (STEPS / 6, 1))

_TEMPERATURE = 0.1  # as in the InfoNCE of latent alignment between moments


def require_comparable(config: DiffuserConfig, streams: Collection[str], mode: str) -> None:
    """`ValueError` where candidates cannot be compared; `mode` is that of the alignment."""
    if not _comparable(config, streams, mode):
        raise ValueError(
            "Candidates are compared by how well their streams agree: generate or hold two streams or more with "
            'alignment "paper" and a model with latent alignment, or choose 1 candidate.'
        )


def default_candidates(config: CoDiConfig, streams: Collection[str], mode: str) -> int:
    """N by default for a result of these streams, generated or held: 1 where candidates cannot be compared."""
    return config.num_candidates if _comparable(config.diffuser, streams, mode) else 1


def _comparable(config: DiffuserConfig, streams: Collection[str], mode: str) -> bool:
    return mode == "paper" and len(streams) > 1 and not config.unaligned(streams)


def pruning_levels(num_candidates: int) -> list[tuple[float, int]]:
    """The rows of `PRUNING_SCHEDULE` that apply to so many candidates."""
    return [(timestep, keep) for timestep, keep in PRUNING_SCHEDULE if keep < num_candidates]


def prune(
    diffuser: Diffuser,
    latents: Mapping[str, Tensor],
    num_candidates: int,
    keep: int = 1,
    windows: Sequence[Window] | None = None,
) -> Tensor:
    """Rows of the batch of the best candidates: ``[keep * B]``, the best of all results first.

    The score is the InfoNCE of latent alignment (paper section 3.4): a candidate scores high if its streams match each
    other more than they match other candidates' streams. Plain similarity would favour what is easy to agree on, such
    as single objects. Between two candidates plain similarity decides. The scores of all windows of a long clip are
    added.

    Parameters
    ----------
    latents : dict of str to Tensor
        Clean scaled latents, or estimates of them, of two streams or more, ``[num_candidates * B, ...]``: the first
        candidates of all results come first.
    windows : sequence of Window, optional
        Of a long clip; by default the whole clip is one.
    """
    parts = [latents] if windows is None else [{n: w.cut(n, z) for n, z in latents.items()} for w in windows]
    score = torch.stack([score for part in parts for score in _scores(diffuser, part, num_candidates)]).sum(0)
    best = score.argsort(dim=0, descending=True, stable=True)[:keep]
    return (best * score.shape[1] + torch.arange(score.shape[1], device=score.device)).flatten()


def _scores(diffuser: Diffuser, latents: Mapping[str, Tensor], num_candidates: int) -> list[Tensor]:
    """Scores ``[num_candidates, B]`` of each pair of streams: of the whole, and over time where both have time."""
    tokens = {name: t.float() for name, t in diffuser.clean_environment(latents).items()}
    scores = []
    for a, b in itertools.combinations(tokens.values(), 2):
        scores.append(_score(pooled(a), pooled(b), num_candidates))
        if a.shape[1] > 1 and b.shape[1] > 1:
            steps = min(a.shape[1], b.shape[1])
            over_time = (F.normalize(temporal_channels(resampled(t, steps)), dim=-1) for t in (a, b))
            scores.append(_score(*over_time, num_candidates))
    return scores


def select(diffuser: Diffuser, latents: Mapping[str, Tensor], windows: Sequence[Window] | None = None) -> int:
    """Index of the best among finished results of one prompt, arguments as for `prune`; applies the whole schedule."""
    rows = torch.arange(len(next(iter(latents.values()))))
    for _, keep in pruning_levels(len(rows)):
        group = {name: z[rows] for name, z in latents.items()}
        rows = rows[prune(diffuser, group, len(rows), keep, windows).cpu()]
    return int(rows[0])


def _score(a: Tensor, b: Tensor, num_candidates: int) -> Tensor:
    """InfoNCE score of each candidate.

    Tokens ``[num_candidates * B, T, D]`` of length 1 of two streams -> ``[num_candidates, B]``.
    """
    a, b = (t.unflatten(0, (num_candidates, -1)) for t in (a, b))
    similarity = torch.einsum("nbtd,mbtd->bnm", a, b) / (a.shape[2] * _TEMPERATURE)
    score = similarity.log_softmax(1) + similarity.log_softmax(2)
    return score.diagonal(dim1=1, dim2=2).T
