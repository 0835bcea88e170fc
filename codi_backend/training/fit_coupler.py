"""Training a coupler in memory, where there is no run folder: in ComfyUI and in notebooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..config.coupler import AXES, CouplerConfig
from ..models.coupler import Coupler
from .coupler import CouplerStage, describe
from .loop import Options, learning_rate_factor

DEFAULTS = Options(steps=2000, batch_size=128, learning_rate=1e-3, warmup=100, ema=0.998)
MIN_PAIRS = 16


def default_axes(latents: Tensor) -> str:
    """The axes of latents ``[N, C, ...]`` by their number; those with two may be given as TF or FT instead of HW."""
    extent = tuple(latents.shape[2:])
    if extent == (1, 1):
        return ""
    by_rank = {0: "", 1: "T", 2: "HW", 3: "THW"}
    if len(extent) not in by_rank:
        raise ValueError(f"latents of shape {list(latents.shape)} have too many axes; give [N, C] to [N, C, T, H, W].")
    return by_rank[len(extent)]


def new_coupler(latents: Mapping[str, Tensor], axes: Mapping[str, str] | None = None) -> Coupler:
    """A coupler with random weights for the spaces of clean latents ``[N, C, ...]``, in the autoencoders' units.

    Parameters
    ----------
    axes : dict of str to str, optional
        See `LatentSpace`; by default those of `default_axes`.

    Raises
    ------
    ValueError
        For fewer than two streams, too few pairs, or axes that do not fit.
    """
    if len(latents) < 2:
        raise ValueError("a coupler needs latents of two streams or more.")
    spaces = []
    for name, values in latents.items():
        if len(values) < MIN_PAIRS:
            raise ValueError(f"{name}: {len(values)} latents are too few to train on; give {MIN_PAIRS} or more.")
        chosen = (axes or {}).get(name) or default_axes(values)
        if chosen not in AXES or (len(chosen) != values.ndim - 2 and (chosen or values.shape[2:] != (1, 1))):
            raise ValueError(f"{name}: latents of shape {list(values.shape)} do not have the axes {chosen!r}.")
        spaces.append(describe(name, values if chosen else values.flatten(1), chosen))
    return Coupler(CouplerConfig(tuple(spaces)))


def fit_coupler(
    latents: Mapping[str, Tensor],
    *,
    steps: int = DEFAULTS.steps,
    batch_size: int = DEFAULTS.batch_size,
    learning_rate: float = DEFAULTS.learning_rate,
    seed: int = 0,
    axes: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[Coupler, list[dict[str, float]]]:
    """Train a coupler on pairs of clean latents.

    Parameters
    ----------
    latents : dict of str to Tensor
        ``[N, C, ...]`` by the name of the space, in the units of the autoencoder; equal rows belong together.
    axes : dict of str to str, optional
        See `new_coupler`.
    progress : callable, optional
        Called with (steps done, steps in all, loss) after each step; an exception that it raises ends the training.

    Returns
    -------
    tuple of Coupler and list of dict
        The coupler with averaged weights (EMA), and the loss and accuracy of every step.

    Raises
    ------
    ValueError
        For latents that cannot be trained on.
    FloatingPointError
        If the loss is not finite.
    """
    if len({len(values) for values in latents.values()}) > 1:
        counts = ", ".join(f"{name} {len(values)}" for name, values in latents.items())
        raise ValueError(f"the streams have different numbers of latents ({counts}); give them in pairs.")
    options = Options(
        steps, batch_size, learning_rate, warmup=min(DEFAULTS.warmup, steps // 4), ema=DEFAULTS.ema, seed=seed
    )
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        coupler = new_coupler(latents, axes).to(device)
        stage = CouplerStage(coupler, {name: values.detach().clone() for name, values in latents.items()})
        parameters = list(coupler.parameters())
        averages = [p.detach().clone() for p in parameters]
        optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, options))
        history = []
        for step in range(steps):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            batch = {name: z.to(device) for name, z in stage.batch(step, batch_size, seed).items()}
            loss, figures = stage(batch, generator)
            if not math.isfinite(value := float(loss.detach())):
                raise FloatingPointError(f"The loss of the coupler is {value} at step {step}: lower the learning rate.")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, options.clip)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            with torch.no_grad():
                torch._foreach_lerp_(averages, parameters, 1 - min(options.ema, (step + 1) / (step + 10)))
            history.append({"step": step + 1, "loss": value, **figures})
            if progress is not None:
                progress(step + 1, steps, value)
        with torch.no_grad():
            for parameter, average in zip(parameters, averages):
                parameter.copy_(average)
    return coupler.cpu().eval(), history
