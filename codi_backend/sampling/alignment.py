"""Latent alignment in the branches of guidance and over the noise levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..models.diffuser.diffuser import Strength
from ..models.noise_schedule import STEPS

# Start and end of the guidance interval of modality guidance, as shares of the schedule from its highest noise level
# on. What streams agree on is decided within it; below, a scale above 1 overdraws colours (docs/experiments.md).
GUIDANCE_INTERVAL = (0.0, 0.5)


def for_branch(mode: str, is_conditional: bool) -> str:
    """The alignment of one branch of classifier-free guidance.

    With mode "paper" the unconditional branch is unaligned, so that guidance strengthens what other streams condition
    as it does the prompt. The released code aligns both branches alike.
    """
    return "none" if mode == "paper" and not is_conditional else mode


def progress(timestep: float | Tensor) -> float:
    """Share of the schedule that is done at a timestep: 0 at the highest noise level, 1 at the lowest."""
    return min(max(1 - float(timestep) / (STEPS - 1), 0.0), 1.0)


def modality_guidance_at(scale: float, timestep: float | Tensor, has_held: bool) -> float:
    """The modality guidance scale of `Diffuser.forward` at a noise level: `scale` in `GUIDANCE_INTERVAL`, 1 elsewhere.

    It is 1 also where a stream is held. A held stream conditions without noise, which needs no amplification. Guidance
    is limited to an interval as by Kynkäänniemi et al. (NeurIPS 2024).
    """
    # The timestep comes last: reading it makes a GPU wait.
    return 1.0 if scale == 1 or has_held or timestep < GUIDANCE_INTERVAL[1] * STEPS else scale


def pair_strengths(
    strength: float, pairs: Mapping[tuple[str, str], float], factor: float, streams: Sequence[str]
) -> Strength:
    """Strengths of connectors for `Diffuser.forward`.

    Parameters
    ----------
    strength : float
        Of pairs of streams that `pairs` does not name.
    pairs : dict of (target, source) to float
    factor : float
        Multiplies all strengths.
    streams : sequence of str
        The streams of the run.
    """
    if not pairs:
        return strength * factor
    return {
        (target, source): factor * pairs.get((target, source), strength) for target in streams for source in streams
    }
