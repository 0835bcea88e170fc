"""Sampling several streams together with diffusers' schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .conditioning import Prompt
from .diffuser import Diffuser
from .diffuser.joint import Strength
from .diffusion import BETA_END, BETA_START, STEPS, noise_ratio
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
    held: Mapping[str, Tensor] | None = None,
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
    held : dict of str to Tensor, optional
        Clean scaled latents ``[B, ...]`` of those streams in `noise` that the others only hear: before each step they
        are noised to its level, always with the same noise, so that they look as if they were being denoised too.

    Returns
    -------
    dict of str to Tensor
        Scaled latents of the streams that are not held, shaped like their `noise`.
    """
    if not math.isfinite(guidance):
        raise ValueError(f"The guidance {guidance} is not a number to scale with: choose a finite one, such as 7.5.")
    held = held or {}
    schedulers = {name: make_scheduler(sampler, steps) for name in noise if name not in held}
    if not schedulers:
        raise ValueError("Every stream is held: name at least one output that is to be generated.")
    timesteps = next(iter(schedulers.values())).timesteps
    device = prompt.embedding.device
    noise = {name: n.to(device) for name, n in noise.items()}
    x = {name: noise[name] * scheduler.init_noise_sigma for name, scheduler in schedulers.items()}
    settings = {"alignment": alignment, "strength": strength}
    if held:
        settings["predict"] = list(schedulers)
    quiet = settings | {"alignment": "released" if alignment == "released" else "none"}
    for done, t in enumerate(timesteps, 1):
        streams = {name: schedulers[name].scale_model_input(latent, t) for name, latent in x.items()}
        heard = {name: _noised(latent, noise[name], t) for name, latent in held.items()}
        when = t.to(device).expand(len(prompt.embedding))
        eps = diffuser(streams | heard, when, prompt.embedding, **settings)
        if guidance != 1:
            # Nobody hears the held streams here. As released, a stream hears itself, but only where there are others.
            present = streams | heard if quiet["alignment"] == "released" else streams
            without = diffuser(present, when, prompt.unconditional, **quiet)
            eps = {name: without[name] + guidance * (eps[name] - without[name]) for name in x}
        for name in x:
            x[name] = schedulers[name].step(eps[name], t, x[name], return_dict=False)[0]
        if progress is not None:
            progress(done, len(timesteps))
    return x


def _noised(clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What the diffuser is shown of a clean latent at a timestep, which may be fractional.

    Its variance is preserved whatever the sampler computes with.
    """
    ratio = float(noise_ratio(timestep.reshape(1)))
    return (clean + ratio * noise) / (1 + ratio**2) ** 0.5
