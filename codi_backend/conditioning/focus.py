"""Focus: an image's tokens moved towards what it shows, or towards how it looks (SPEC_VD section 7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checks.inputs import MAX_EMBEDDING
from ..checks.numbers import require_finite, require_number

RANK = 20
SEMANTIC_RANK = 1
STYLE_RANK = 5


def focus(tokens: Tensor, level: float) -> Tensor:
    """Weaken the strongest components of tokens (semantic), or keep little but them (style).

    Parameters
    ----------
    tokens : Tensor
        Local tokens ``[B, N, D]``, at least `RANK` of at least `RANK` channels (any number at 0.5). Every sample is
        edited by itself.
    level : float
        0: the two strongest components are gone, which carry the style. 0.5: the tokens as they are. 1: only the five
        strongest are left. From just above 0.5 on, components beyond `RANK` are dropped.

    Returns
    -------
    Tensor
        ``[B, N, D]`` with the standard deviation each sample had, in the dtype given. Samples of equal tokens
        throughout, such as those of a fully masked image, keep it at 0.

    Raises
    ------
    ValueError
        For another shape, too few tokens or channels, values that are not finite, or a level outside 0 to 1.
    """
    level = require_number(level, "focus", 0, 1)
    check_tokens(tokens)
    if level == 0.5:
        return tokens
    if min(tokens.shape[1:]) < RANK:
        raise ValueError(
            f"Focus needs at least {RANK} local tokens of at least {RANK} channels, not {list(tokens.shape)}: "
            "set it to 0.5 for this image encoder."
        )
    x, mean, u, s, v = decompose(tokens, RANK)
    if level < 0.5:
        # What the factors take away is subtracted, so that the remainder beyond RANK stays.
        edited = mean + x - (u * (s * (1 - _semantic_factors(level, s)))[:, None]) @ v
    else:
        edited = mean + (u * (s * _style_factors(level, s))[:, None]) @ v
    return _with_spread(edited, x + mean).to(tokens.dtype)


def focus_local(tokens: Tensor, level: float, whole: int = 1) -> Tensor:
    """`focus` on ``[B, whole + N, D]`` but for the first tokens, which describe the whole image."""
    check_tokens(tokens)
    return torch.cat([tokens[:, :whole], focus(tokens[:, whole:], level)], 1)


def decompose(tokens: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The strongest components of ``tokens [B, N, D]`` about each token's mean over channels, by an exact SVD.

    Returns
    -------
    tuple of Tensor
        In single precision at least: the centred tokens ``[B, N, D]``, their means ``[B, N, 1]``, and
        ``U [B, N, rank]``, ``S [B, rank]`` (largest first), ``V [B, rank, D]``, so that ``U diag(S) V`` are the nearest
        tokens of that rank.
    """
    x = tokens if tokens.dtype == torch.float64 else tokens.float()
    mean = x.mean(-1, keepdim=True)
    x = x - mean
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    return x, mean, u[..., :rank], s[:, :rank], v[:, :rank]


def check_tokens(tokens: Tensor) -> None:
    """A sentence about tokens that are not ``[B, N, D]``, not finite, or too large."""
    if tokens.ndim != 3:
        raise ValueError(f"Tokens are [B, N, D], not {list(tokens.shape)}.")
    require_finite(tokens, "An image's tokens", "encode the image again", MAX_EMBEDDING)


def _semantic_factors(level: float, s: Tensor) -> Tensor:
    """From (0, 0) for the two strongest components at level 0 to (1, 1) at 0.5; 1 for all others."""
    y = -1 + 2 * (_curve(level) - _curve(0)) / (1 - _curve(0))
    factors = torch.ones_like(s[0])
    for index in range(SEMANTIC_RANK + 1):
        factors[index] = max(0.0, y + index / SEMANTIC_RANK * (1 - y) / 2)
    return factors


def _style_factors(level: float, s: Tensor) -> Tensor:
    """From 1 for all components at 0.5 to 0 for all but the strongest at level 1; the weakest go first."""
    y = -15 + 16 * (_curve(level) - _curve(1)) / (1 - _curve(1))
    factors = torch.ones_like(s[0])
    for index in range(STYLE_RANK, RANK):
        factors[index] = max(0.0, y + (RANK - 1 - index) / (RANK - STYLE_RANK) * (1 - y))
    return factors


def _curve(level: float) -> float:
    return math.exp(2 * level - 1)


def _with_spread(edited: Tensor, original: Tensor) -> Tensor:
    """Give each sample of `edited` the standard deviation of `original`, unless nothing but rounding is left of it."""
    wanted, got = (t.std((1, 2), keepdim=True) for t in (original, edited))
    something = got > 1e-6 * wanted
    return edited * torch.where(something, wanted / got.masked_fill(~something, 1.0), 1.0)
