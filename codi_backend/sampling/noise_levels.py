"""One noise level for models of different kinds: predictions of noise, of v, of flow velocity, or of clean latents.

The common state is ``x = clean + sigma * noise``. A common sigma is an equal signal-to-noise ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, float], Tensor]
"""Takes ``x = clean + sigma * noise`` ``[B, ...]`` and sigma, and predicts the clean latents."""


def from_diffusers(predict: Callable[[Tensor, Tensor], Tensor], scheduler: Any) -> Denoiser:
    """A denoiser of a model that belongs to a scheduler of diffusers.

    Parameters
    ----------
    predict : callable
        Takes latents as the network takes them and a timestep (a tensor without axes), and returns what the network
        predicts, guidance included.
    scheduler
        Determines what is predicted: noise, v or clean latents on the schedule `alphas_cumprod`, or the velocity of a
        flow.

    Raises
    ------
    ValueError
        For a scheduler of another kind. A denoiser of one's own needs no scheduler.
    """
    config = scheduler.config
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None and type(scheduler).__name__.startswith("FlowMatch"):
        return flow_denoiser(lambda x, t: predict(x, t * config.num_train_timesteps))
    kind = config.get("prediction_type", "epsilon")
    if alphas is None or kind not in _CLEAN:
        raise ValueError(
            f"{type(scheduler).__name__} with prediction type {kind!r} is not known here: write a denoiser, a function "
            "of x = clean + sigma * noise and sigma that returns the clean latents."
        )
    return ddpm_denoiser(predict, alphas, kind)


_CLEAN: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    # Of the input x = sqrt(a) clean + sqrt(1 - a) noise, the output and a.
    "epsilon": lambda x, eps, a: (x - (1 - a).sqrt() * eps) / a.sqrt(),
    "v_prediction": lambda x, v, a: a.sqrt() * x - (1 - a).sqrt() * v,
    "sample": lambda x, clean, a: clean,
}


def ddpm_denoiser(predict: Callable[[Tensor, Tensor], Tensor], alphas: Tensor, kind: str = "epsilon") -> Denoiser:
    """A denoiser of a network of variance-preserving diffusion.

    Parameters
    ----------
    predict : callable
        Takes latents ``sqrt(a) clean + sqrt(1 - a) noise`` and a fractional timestep.
    alphas : Tensor
        The cumulative product `alphas_cumprod` of the timesteps.
    kind : {"epsilon", "v_prediction", "sample"}
        What is predicted.

    Sigmas beyond the schedule are clamped to its ends; the latents keep unit variance.
    """
    ratios = ((1 - alphas.double()) / alphas.double()).sqrt()

    def denoise(x: Tensor, sigma: float) -> Tensor:
        level = torch.tensor(float(sigma), dtype=torch.float64).clamp(ratios[0], ratios[-1])
        high = int(torch.searchsorted(ratios, level).clamp(1, len(ratios) - 1))
        timestep = high - 1 + (level - ratios[high - 1]) / (ratios[high] - ratios[high - 1])
        x = x / (1 + float(sigma) ** 2) ** 0.5
        predicted = predict(x, timestep.to(x.device, torch.float32))
        return _CLEAN[kind](x, predicted, (1 / (1 + level**2)).to(x))

    return denoise


def flow_denoiser(predict: Callable[[Tensor, Tensor], Tensor]) -> Denoiser:
    """A denoiser of a flow model, which predicts ``noise - clean`` of ``(1 - t) clean + t noise``; t is in 0..1."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        t = float(sigma) / (1 + float(sigma))
        x = x * (1 - t)
        return x - t * predict(x, torch.tensor(t, device=x.device))

    return denoise
