"""The settings of a run, as two frozen value objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..models.diffuser.diffuser import Strength


@dataclass(frozen=True)
class AlignmentSettings:
    """How the streams of a joint run attend to each other.

    Attributes
    ----------
    mode : {"paper", "released", "none"}
        What a stream's connectors attend to, see `Diffuser.forward`.
    strength : float or dict of (target, source) to float
        Strength of the connectors, see `Diffuser.forward`.
    modality_guidance : float
        Modality guidance scale: how far the cross-attention between streams guides a prediction, as a multiple of the
        classifier-free guidance. It holds within the guidance interval, see `alignment.modality_guidance_at`.
    """

    mode: str = "paper"
    strength: Strength = 1.0
    modality_guidance: float = 1.0


@dataclass(frozen=True)
class SamplingSettings:
    """How latents are denoised.

    Attributes
    ----------
    steps : int
        Number of sampling steps.
    sampler : str
        One of `samplers.SAMPLERS`.
    guidance : float or sequence of float
        Classifier-free guidance scale; 1 predicts with the prompt alone. A `MixedContext` may have one scale for each
        of its contexts, see `guidance.plan`.
    seed : int
        Of the random draws during sampling: the noise of stochastic samplers, and mixing "layer".
    num_candidates : int
        N of best-of-N: how many candidates are begun for every result, see `best_of_n`.
    start_strength : float
        How much of a start latent stays: 0 ignores it, 1 returns it. It is 1 - denoise in ComfyUI's terms.
    """

    steps: int = 20
    sampler: str = "dpmpp_2m"
    guidance: float | Sequence[float] = 7.5
    seed: int = 0
    num_candidates: int = 1
    start_strength: float = 0.0


@dataclass(frozen=True)
class WindowSettings:
    """In which windows a long clip is denoised, see `windows`.

    Attributes
    ----------
    seconds : float or None
        Length of a window. None: the shortest clip of the model's training among the streams of the run, for clips
        that exceed it. Infinite: the whole clip at once, of up to 120 frames. docs/evaluation.md compares them.
    overlap : float or None
        Seconds that a window shares with the next one. None: a quarter of a window.
    """

    seconds: float | None = None
    overlap: float | None = None
