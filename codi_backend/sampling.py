"""Sampling several streams together with diffusers' schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .checks import MAX_SCALE, require_number, require_whole
from .conditioning import Prompt
from .contexts import Context, MixedContext
from .diffuser import Contexts, Diffuser, draw_contexts
from .diffuser.joint import Strength
from .diffusion import (
    BETA_END,
    BETA_START,
    SETTLED,
    STEPS,
    alphas_cumprod,
    clean_latent,
    mean_latent,
    step_generators,
)
from .inputs import as_latent
from .released import ReleasedDDIM
from .selection import ROUNDS, best_candidates, check_company

SAMPLERS = ("dpmpp_2m", "dpmpp_2m_sde", "ddim", "euler", "ddim_released")


def make_scheduler(sampler: str, steps: int) -> Any:
    """A diffusers scheduler on CoDi's noise schedule, set to `steps` steps; one is needed for every stream.

    "ddim_released" is the released code's own rule instead.
    """
    import diffusers

    if sampler not in SAMPLERS:
        raise ValueError(f"There is no sampler {sampler!r}; choose from {', '.join(SAMPLERS)}.")
    steps = require_whole(steps, "steps", 1, STEPS)
    if sampler == "ddim_released":
        return ReleasedDDIM(steps)
    shared = {
        "num_train_timesteps": STEPS,
        "beta_start": BETA_START,
        "beta_end": BETA_END,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "linspace" if sampler != "ddim" else "trailing",
    }
    if sampler in ("dpmpp_2m", "dpmpp_2m_sde"):
        rule = "sde-dpmsolver++" if sampler == "dpmpp_2m_sde" else "dpmsolver++"
        scheduler = diffusers.DPMSolverMultistepScheduler(**shared, algorithm_type=rule, solver_order=2)
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
    prompt: Prompt | Context | MixedContext,
    *,
    steps: int,
    guidance: float | Sequence[float],
    sampler: str,
    alignment: str = "paper",
    strength: Strength = 1.0,
    alignment_scale: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
    held: Mapping[str, Tensor] | None = None,
    start: Mapping[str, Tensor] | None = None,
    fidelity: float = 0.0,
    means: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
    candidates: int = 1,
) -> dict[str, Tensor]:
    """Denoise all streams at one common noise level per step.

    Parameters
    ----------
    noise : dict of str to Tensor
        Starting noise by modality, unit variance, batch size B.
    prompt : Prompt, or Context or MixedContext
        Batch size B. Contexts are for diffusers with layers per kind of context, and for a single stream: what guidance
        leads away from may depend on it.
    guidance : float, or sequence of float
        Classifier-free guidance scale; 1 runs the prompt alone. With alignment "paper" the unconditional prediction
        hears no other stream, so that guidance leads towards what the others say as it does towards the prompt. Of a
        `MixedContext`, each context may have its own: see `guidance_steps`.
    alignment, strength
        See `Diffuser.forward`.
    alignment_scale : float
        How far what the other streams say leads, as a multiple of the guidance; where, says `scale_at`.
    progress : callable, optional
        Called with (steps done, steps in all) after each step; an exception that it raises ends the run.
    held : dict of str to Tensor, optional
        Clean scaled latents ``[B, ...]`` of those streams that the others only hear. They speak from what they are,
        without noise: what a stream will be is decided at high noise, through which a held one could hardly be heard.
    start : dict of str to Tensor, optional
        Clean scaled latents ``[B, ...]`` of all streams that are not held, to begin with.
    fidelity : float
        How much of `start` stays: 0 ignores it, 1 returns it; between, it is noised to the level from which on a share
        of ``1 - fidelity`` of the steps is left. The sampler "ddim_released" does it by the released rule.
    means : dict of str to sequence of float, optional
        `DiffuserConfig.latent_means` of the model: a stream without a start begins with their share, see `mean_latent`.
    seed : int
        Of the draws that mixing "layer" needs, and of the noise that the sampler "dpmpp_2m_sde" adds in every step,
        which each result of each stream has to itself, as in `stream_noise`.
    candidates : int
        How many candidates every result has, for which `noise` is ``[candidates * B, ...]``: first of all results the
        first candidate, see `stream_noise`. In the lower half of the timesteps only the best two of them go on, in the
        lowest sixth the better one, by `best_candidates`. For two streams or more that hear each other.

    Returns
    -------
    dict of str to Tensor
        Scaled latents of the streams that are not held, shaped like their `noise`.

    Raises
    ------
    ValueError
        For an argument that is out of range or does not fit another one.
    """
    held = dict(held or {})
    prompt.check()
    for name, values in noise.items():
        as_latent(values, f"The {name} noise")
    schedulers = {name: make_scheduler(sampler, steps) for name in noise if name not in held}
    if not schedulers:
        raise ValueError("Every stream is held: name at least one output that is to be generated.")
    fidelity = require_number(fidelity, "fidelity", 0, 1)
    alignment_scale = require_number(alignment_scale, "alignment_scale", -MAX_SCALE, MAX_SCALE)
    if fidelity > 0 and schedulers.keys() != (start or {}).keys():
        raise ValueError(f"A fidelity above 0 needs a start for {', '.join(schedulers)}, and for nothing else.")
    if isinstance(prompt, Context):
        prompt = MixedContext((prompt,), (1.0,))
    conditions = _conditions(prompt, next(iter(schedulers)))
    kept, scales = guidance_steps(guidance, len(conditions) - 1)
    conditions = [conditions[i] for i in kept]
    like = conditions[0] if torch.is_tensor(conditions[0]) else prompt.tokens
    if candidates > 1:
        check_company(diffuser.config, [*schedulers, *held], alignment)
        conditions = [torch.cat([c] * candidates) for c in conditions]
        held, start = ({n: torch.cat([z] * candidates) for n, z in (given or {}).items()} for given in (held, start))
    draw = _drawing(prompt, diffuser, seed)
    noise = {name: n.to(like.device) for name, n in noise.items()}
    timesteps = next(iter(schedulers.values())).timesteps
    leak = float(alphas_cumprod()[int(timesteps[0])].sqrt())
    x = {}
    for name, scheduler in schedulers.items():
        begin = noise[name] + leak * mean_latent(means or {}, name).to(noise[name])
        x[name] = begin * scheduler.init_noise_sigma
    if fidelity > 0:
        for name, clean in start.items():
            x[name], left = _begin(schedulers[name], clean.to(noise[name]), noise[name], fidelity)
        timesteps = timesteps[len(timesteps) - left :]
    generators = {name: step_generators(len(like), seed, name, candidates) for name in schedulers}

    def listening() -> tuple[dict[str, Any], dict[str, Any]]:
        """How streams listen with all of the prompt, and without."""
        settings: dict[str, Any] = {"alignment": alignment, "strength": strength}
        if held:
            settings["predict"] = list(schedulers)
            if alignment == "paper":
                settings["environment"] = diffuser.clean_environment(held)
        return settings, settings | {"alignment": "released" if alignment == "released" else "none"}

    settings, quiet = listening()
    rounds = [(below, keep) for below, keep in ROUNDS if keep < candidates]
    for done, t in enumerate(timesteps, 1):
        streams = {name: schedulers[name].scale_model_input(latent, t) for name, latent in x.items()}
        when = t.to(like.device).expand(len(like) * candidates)
        drawn = draw()
        hearing = scale_at(alignment_scale, t, bool(held))
        last = diffuser(streams | held, when, conditions[-1], alignment_scale=hearing, **settings, **drawn)
        # Nobody hears the held streams here. As released, a stream hears itself, but only where there are others.
        present = streams | held if quiet["alignment"] == "released" else streams
        guesses = [*(diffuser(present, when, c, **quiet, **drawn) for c in conditions[:-1]), last]
        eps = guesses[0]
        for scale, less, more in zip(scales, guesses, guesses[1:]):
            eps = {name: eps[name] + scale * (more[name] - less[name]) for name in x}
        while rounds and (t < rounds[0][0] or done == len(timesteps)):
            _, keep = rounds.pop(0)
            clean = {name: clean_latent(eps[name], streams[name], when) for name in x}
            best = best_candidates(diffuser, clean | held, candidates, keep)
            candidates = keep
            x, eps, held, streams = ({n: rows[best] for n, rows in group.items()} for group in (x, eps, held, streams))
            when, conditions = when[best], [c[best] for c in conditions]
            settings, quiet = listening()
            generators = {name: [own[i] for i in best] for name, own in generators.items()}
            for scheduler in schedulers.values():
                _keep(scheduler, best)
        for name in x:
            x[name] = schedulers[name].step(eps[name], t, x[name], generator=generators[name], return_dict=False)[0]
        if progress is not None:
            progress(done, len(timesteps))
    return x


def _keep(scheduler: Any, rows: Tensor) -> None:
    """Leave only these rows in what a scheduler remembers of earlier steps."""
    if hasattr(scheduler, "model_outputs"):
        scheduler.model_outputs = [None if m is None else m[rows] for m in scheduler.model_outputs]


def scale_at(alignment_scale: float, timestep: float | Tensor, held: bool) -> float:
    """The `alignment_scale` of `Diffuser.forward` at a noise level: 1 in the lower half of the timesteps.

    What streams agree on is decided above. Below, where colours come out, a larger scale overdraws them: so guidance is
    kept to an interval (Kynkäänniemi et al., NeurIPS 2024). It is 1 also where a stream is `held`, which speaks without
    noise and is heard well enough.
    """
    # The timestep comes last: to read it, a GPU has to be waited for.
    return 1.0 if alignment_scale == 1 or held or timestep < SETTLED else alignment_scale


def guidance_steps(guidance: float | Sequence[float], contexts: int) -> tuple[list[int], list[float]]:
    """Which predictions guidance needs, and how their differences are scaled.

    Contexts are made known to the network one by one: the prediction numbered k knows the first k of them. What each
    changes is scaled by its own guidance, ``e_0 + sum_k s_k (e_k - e_(k-1))``; with equal scales that is the usual
    guidance by all at once, and needs only its two predictions.

    Parameters
    ----------
    guidance : float, or sequence of float
        One scale for all contexts, or one for each, in their order.
    contexts : int

    Returns
    -------
    list of int, list of float
        Numbers of the predictions to run, ascending, and one scale for each two neighbours among them.
    """
    given = guidance if isinstance(guidance, Sequence) and not isinstance(guidance, str) else [guidance] * contexts
    scales = [require_number(scale, "guidance", -MAX_SCALE, MAX_SCALE) for scale in given]
    if len(scales) != contexts:
        raise ValueError(f"There are {len(scales)} guidance scales for {contexts} contexts: give one, or one for each.")
    kept = [k for k in range(contexts) if k == 0 or scales[k] != scales[k - 1]]
    used = [scales[k] for k in kept]
    if used[0] == 1:  # the first prediction would be taken away again
        return [*kept[1:], contexts], used[1:]
    return [*kept, contexts], used


def _conditions(prompt: Prompt | MixedContext, output: str) -> list[Tensor | Contexts]:
    """What the diffuser is told, from nothing to all of the prompt."""
    if isinstance(prompt, Prompt):
        return [prompt.unconditional, prompt.embedding]
    return [prompt.given(output, known) for known in range(len(prompt.contexts) + 1)]


def _drawing(prompt: Prompt | MixedContext, diffuser: Diffuser, seed: int) -> Callable[[], dict[str, Any]]:
    """What draws a context for every slot, anew for each step, where the prompt's mixing asks for it."""
    if isinstance(prompt, Prompt) or prompt.mixing != "layer":
        return dict
    generator = torch.Generator().manual_seed(seed)
    return lambda: {"drawn": draw_contexts(prompt.ratios, diffuser.slots, generator)}


def _begin(scheduler: Any, clean: Tensor, noise: Tensor, fidelity: float) -> tuple[Tensor, int]:
    """The start of a stream, noised to the level of the first step that is left, and how many are."""
    if isinstance(scheduler, ReleasedDDIM):
        return scheduler.begin(clean, noise, fidelity)
    count = len(scheduler.timesteps)
    left = math.floor(count * (1 - fidelity) + 0.5)
    if left == 0:
        return clean, 0
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(count - left)
    return scheduler.add_noise(clean, noise, scheduler.timesteps[count - left].expand(len(clean))), left
