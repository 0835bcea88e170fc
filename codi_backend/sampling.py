"""Sampling several streams together with diffusers' schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .conditioning import Prompt
from .diffuser import Diffuser
from .diffuser.joint import Strength
from .diffusion import BETA_END, BETA_START, STEPS
from .released import ReleasedDDIM

SAMPLERS = ("dpmpp_2m", "ddim", "euler", "ddim_released")


def make_scheduler(sampler: str, steps: int) -> Any:
    """A diffusers scheduler on CoDi's noise schedule, set to `steps` steps; one is needed for every stream.

    "ddim_released" is the released code's own rule instead.
    """
    import diffusers

    if sampler not in SAMPLERS:
        raise ValueError(f"There is no sampler {sampler!r}; choose from {', '.join(SAMPLERS)}.")
    if not 1 <= steps <= STEPS:
        raise ValueError(f"{steps} steps are not possible: choose 1 to {STEPS}.")
    if sampler == "ddim_released":
        return ReleasedDDIM(steps)
    shared = {
        "num_train_timesteps": STEPS,
        "beta_start": BETA_START,
        "beta_end": BETA_END,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "linspace" if sampler != "ddim" else "trailing",
    }
    if sampler == "dpmpp_2m":
        scheduler = diffusers.DPMSolverMultistepScheduler(**shared, algorithm_type="dpmsolver++", solver_order=2)
    elif sampler == "ddim":
        scheduler = diffusers.DDIMScheduler(**shared, clip_sample=False, set_alpha_to_one=False)
    else:
        scheduler = diffusers.EulerDiscreteScheduler(**shared)
    scheduler.set_timesteps(steps)
    return scheduler


@torch.inference_mode()
def sample(
    diffuser: Diffuser,
    noise: dict[str, Tensor],
    prompt: Prompt,
    *,
    steps: int,
    guidance: float,
    sampler: str,
    alignment: str,
    strength: Strength,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Denoise all streams at one common noise level per step.

    Parameters
    ----------
    noise : dict of str to Tensor
        Starting noise by modality, unit variance, batch size B.
    prompt : Prompt
        Batch size B.
    guidance : float
        Classifier-free guidance scale; 1 runs the prompt alone. With alignment "paper" the unconditional prediction
        hears no other stream, so that guidance leads towards what the others say as it does towards the prompt.
    progress : callable, optional
        Called with (steps done, steps in all) after each step; an exception that it raises ends the run.

    Returns
    -------
    dict of str to Tensor
        Scaled latents, shaped like `noise`.
    """
    if not math.isfinite(guidance):
        raise ValueError(f"The guidance {guidance} is not a number to scale with: choose a finite one, such as 7.5.")
    schedulers = {name: make_scheduler(sampler, steps) for name in noise}
    timesteps = next(iter(schedulers.values())).timesteps
    device = prompt.embedding.device
    x = {name: n.to(device) * schedulers[name].init_noise_sigma for name, n in noise.items()}
    settings = {"alignment": alignment, "strength": strength}
    for done, t in enumerate(timesteps, 1):
        scaled = {name: schedulers[name].scale_model_input(latent, t) for name, latent in x.items()}
        when = t.to(device).expand(len(prompt.embedding))
        eps = diffuser(scaled, when, prompt.embedding, **settings)
        if guidance != 1:
            quiet = settings | {"alignment": "released" if alignment == "released" else "none"}
            without = diffuser(scaled, when, prompt.unconditional, **quiet)
            eps = {name: without[name] + guidance * (eps[name] - without[name]) for name in eps}
        for name, predicted in eps.items():
            x[name] = schedulers[name].step(predicted, t, x[name], return_dict=False)[0]
        if progress is not None:
            progress(done, len(timesteps))
    return x
