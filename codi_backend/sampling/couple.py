"""Denoising streams of different models together, with a coupler between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks.numbers import MAX_SCALE, require_number
from ..models.coupler import Coupler, EnvironmentCoupler
from .coupling import corrections
from .noise_levels import Denoiser

SIGMA_MAX, SIGMA_MIN, _RHO = 14.6, 0.03, 7.0


@dataclass(frozen=True)
class CoupledStream:
    """A stream and the model that denoises it.

    Attributes
    ----------
    denoise : callable, optional
        See `noise_levels.Denoiser`, on the model's own scaled latents. A held stream needs none.
    scale, shift : float
        The model's latents are ``(latents of the autoencoder - shift) * scale``.
    """

    denoise: Denoiser | None = None
    scale: float = 1.0
    shift: float = 0.0


def karras_sigmas(steps: int, sigma_max: float = SIGMA_MAX, sigma_min: float = SIGMA_MIN) -> list[float]:
    """Noise levels of a run, falling, with 0 at the end (Karras et al., NeurIPS 2022, equation 5)."""
    high, low = sigma_max ** (1 / _RHO), sigma_min ** (1 / _RHO)
    return [(high + i / max(1, steps - 1) * (low - high)) ** _RHO for i in range(steps)] + [0.0]


@torch.no_grad()
def couple(
    streams: Mapping[str, CoupledStream],
    shapes: Mapping[str, Sequence[int]],
    coupler: Coupler | EnvironmentCoupler | None = None,
    *,
    sigmas: Sequence[float] | None = None,
    weight: float = 5.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    held: Mapping[str, Tensor] | None = None,
    eta: float = 1.5,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Denoise streams together by DPM-Solver++(2M) SDE (Lu et al., 2022), at one noise level.

    Parameters
    ----------
    streams : dict of str to CoupledStream
    shapes : dict of str to sequence of int
        ``(B, C, ...)`` of the streams that are generated.
    coupler : Coupler or EnvironmentCoupler, optional
        Its spaces are matched by shape. Without one the streams are independent.
    sigmas : sequence of float, optional
        Falling noise levels that end with 0; by default 60 of `karras_sigmas`.
    weight : float
        Factor of the coupler's correction; 0 switches it off.
    start_percent, end_percent : float
        The part of the steps with the correction, 0..1.
    held : dict of str to Tensor, optional
        Clean latents ``[B, C, ...]`` in the units of the autoencoder, to which the others are pulled.
    eta : float
        Share of noise that is renewed: 0 for a deterministic run. More noise lets streams correct early decisions.
    seed : int
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    dict of str to Tensor
        Latents of the generated streams in the units of the autoencoders.

    Raises
    ------
    ValueError
        If an argument is out of range, or the coupler lacks a stream's latent space.
    """
    held = dict(held or {})
    weight = require_number(weight, "weight", 0, MAX_SCALE)
    names = [name for name in streams if name not in held]
    for name in names:
        if streams[name].denoise is None or name not in shapes:
            raise ValueError(f"{name}: give a denoiser and a shape, or hold this stream.")
    if len({*(shapes[name][0] for name in names), *(len(z) for z in held.values())}) > 1:
        raise ValueError("shapes, held: the batch sizes differ; give all streams the same number of results.")
    sigmas = list(sigmas or karras_sigmas(60))
    steps = len(sigmas) - 1
    order = [*names, *held]
    spaces = (
        coupler.match([tuple(held[name].shape if name in held else shapes[name]) for name in order]) if coupler else []
    )
    generators = {name: torch.Generator().manual_seed(seed * 1_000_003 + i) for i, name in enumerate(streams)}

    def noise(name: str) -> Tensor:
        return torch.randn(tuple(shapes[name]), generator=generators[name]).to(device)

    x = {name: sigmas[0] * noise(name) for name in names}
    before: dict[str, Tensor] = {}
    last_h = 0.0
    for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:])):
        clean = {name: streams[name].denoise(x[name], sigma) for name in names}
        if coupler is not None and weight > 0 and start_percent <= i / steps < end_percent:
            scale = [streams[name].scale for name in names]
            latents = [x[name] / k + streams[name].shift for name, k in zip(names, scale)]
            levels = [sigma / k for k in scale] + [0.0] * len(held)
            found = corrections(coupler, spaces, [*latents, *(z.to(device) for z in held.values())], levels, weight)
            clean = {name: clean[name] + k * d for name, k, d in zip(names, scale, found)}
        if following == 0:
            x = clean
        else:
            h = math.log(sigma / following)
            decay, renewed = math.exp(-h * (1 + eta)), -math.expm1(-2 * eta * h)
            for name in names:
                towards = clean[name]
                if before:
                    towards = towards + h / last_h / 2 * (clean[name] - before[name])
                x[name] = following / sigma * math.exp(-eta * h) * x[name] + (1 - decay) * towards
                if eta > 0:
                    x[name] = x[name] + following * math.sqrt(renewed) * noise(name)
            before, last_h = clean, h
        if progress is not None:
            progress(i + 1, steps)
    return {name: x[name] / streams[name].scale + streams[name].shift for name in names}
