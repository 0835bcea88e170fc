"""Best of several: of a result's candidates, in two rounds, the one goes on whose streams say the same."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import CoDiConfig, DiffuserConfig
from .diffuser import Diffuser
from .diffuser.environment import moments, pooled, resampled
from .diffusion import SETTLED, STEPS

ROUNDS = ((SETTLED, 2), (STEPS / 6, 1))  # below which timestep how many candidates go on

_TEMPERATURE = 0.1  # of latent alignment's InfoNCE between moments


def check_company(config: DiffuserConfig, streams: Collection[str], alignment: str) -> None:
    """`ValueError` where candidates cannot be compared."""
    if not _comparable(config, streams, alignment):
        raise ValueError(
            "Candidates are compared by how well their streams agree: generate or hold two streams or more, which hear "
            'each other (alignment "paper", and a model with latent alignment), or choose 1 candidate.'
        )


def usual_candidates(config: CoDiConfig, streams: Collection[str], alignment: str) -> int:
    """How many candidates a result of these streams, made or held, has by default: 1 where they cannot be compared."""
    return config.candidates if _comparable(config.diffuser, streams, alignment) else 1


def _comparable(config: DiffuserConfig, streams: Collection[str], alignment: str) -> bool:
    return alignment == "paper" and len(streams) > 1 and not config.deaf(streams)


def best_candidates(diffuser: Diffuser, latents: Mapping[str, Tensor], candidates: int, keep: int = 1) -> Tensor:
    """Which candidates of each result to keep: places in the batch, ``[keep * B]``, first of all results the best.

    Judged by what latent alignment has taught the environment encoders (InfoNCE, paper section 3.4): a candidate is
    good whose streams belong together more surely than each belongs to another candidate's. By plain similarity what is
    easy to agree on would win, such as single objects. Between two candidates it is that similarity which decides.

    Parameters
    ----------
    latents : dict of str to Tensor
        Clean scaled latents, or estimates of them, of two streams or more, ``[candidates * B, ...]``: first of all
        results the first candidate.
    """
    tokens = {name: t.float() for name, t in diffuser.clean_environment(latents).items()}
    score: Any = 0.0
    for a, b in itertools.combinations(tokens.values(), 2):
        score = score + _belonging(pooled(a), pooled(b), candidates)
        if a.shape[1] > 1 and b.shape[1] > 1:
            steps = min(a.shape[1], b.shape[1])
            score = score + _belonging(*(F.normalize(moments(resampled(t, steps)), dim=-1) for t in (a, b)), candidates)
    results = score.shape[1]
    best = score.argsort(dim=0, descending=True, stable=True)[:keep]
    return (best * results + torch.arange(results, device=score.device)).flatten()


def best_result(diffuser: Diffuser, latents: Mapping[str, Tensor]) -> int:
    """The place of the best among results of one prompt, `latents` as in `best_candidates`: through all rounds."""
    rows = torch.arange(len(next(iter(latents.values()))))
    for _, keep in ROUNDS:
        if len(rows) > keep:
            group = {name: z[rows] for name, z in latents.items()}
            rows = rows[best_candidates(diffuser, group, len(rows), keep).cpu()]
    return int(rows[0])


def _belonging(a: Tensor, b: Tensor, candidates: int) -> Tensor:
    """How surely a candidate's streams are told to be its own.

    Tokens ``[candidates * B, T, D]`` of length 1 of two streams -> ``[candidates, B]``.
    """
    a, b = (t.unflatten(0, (candidates, -1)) for t in (a, b))
    likeness = torch.einsum("nbtd,mbtd->bnm", a, b) / (a.shape[2] * _TEMPERATURE)
    sure = likeness.log_softmax(1) + likeness.log_softmax(2)
    return sure.diagonal(dim1=1, dim2=2).T
