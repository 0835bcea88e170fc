"""The sampling loop on diffusers' schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks.inputs import as_latent
from ..checks.numbers import MAX_SCALE, require_number, require_whole
from ..conditioning.context import Context, MixedContext
from ..conditioning.prompt import Prompt
from ..conditioning.schedule import PromptSchedule
from ..models.diffuser import Contexts, Diffuser, draw_contexts
from ..models.noise_schedule import BETA_END, BETA_START, STEPS, alphas_cumprod, clean_latent
from . import alignment as aligning
from . import guidance
from .best_of_n import prune, pruning_levels, require_comparable
from .ddim_released import ReleasedDDIM
from .noise import mean_latent, step_generators
from .settings import AlignmentSettings, SamplingSettings
from .windows import Window, blend, window_weights

SAMPLERS = ("dpmpp_2m", "dpmpp_2m_sde", "ddim", "euler", "ddim_released")

Latents = dict[str, Tensor]


def make_scheduler(sampler: str, steps: int) -> Any:
    """A diffusers scheduler on CoDi's noise schedule, set to `steps` steps; every stream needs one.

    "ddim_released" is the released code's own rule instead. `ValueError` for an unknown sampler or number of steps.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"There is no sampler {sampler!r}; choose from {', '.join(SAMPLERS)}.")
    steps = require_whole(steps, "steps", 1, STEPS)
    if sampler == "ddim_released":
        return ReleasedDDIM(steps)
    import diffusers

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
    noise: Latents,
    prompt: Prompt | PromptSchedule | Context | MixedContext,
    settings: SamplingSettings,
    alignment: AlignmentSettings = AlignmentSettings(),  # noqa: B008, frozen
    *,
    held: Mapping[str, Tensor] | None = None,
    start: Mapping[str, Tensor] | None = None,
    latent_means: Mapping[str, Sequence[float]] | None = None,
    windows: Sequence[Window] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Latents:
    """Denoise all streams at one common noise level per step.

    Parameters
    ----------
    noise : dict of str to Tensor
        Starting noise by modality, unit variance: ``[num_candidates * B, ...]``, the first candidates of all results
        first, see `stream_noise`.
    prompt : Prompt, or PromptSchedule, or Context or MixedContext
        Batch size B. Contexts are for diffusers with layers per kind of context, and for a single stream, because the
        unconditional tokens depend on the output. Of a schedule each window has the prompt of its time.
    settings, alignment
        See their classes. The unconditional branch is unaligned, see `alignment.for_branch`.
    held : dict of str to Tensor, optional
        Clean scaled latents ``[B, ...]`` of streams that are sources only. Their environment tokens are those of the
        clean latents.
    start : dict of str to Tensor, optional
        Clean scaled latents ``[B, ...]`` of all streams that are not held, for a `settings.start_strength` above 0:
        they are noised to the level from which on a share of ``1 - start_strength`` of the steps is left.
    latent_means : dict of str to sequence of float, optional
        `DiffuserConfig.latent_means`: a stream without a start begins with their share, see `mean_latent`.
    windows : sequence of Window, optional
        The windows of a long clip, from `plan_windows`; by default the whole clip is one.
    progress : callable, optional
        Called with (steps done, steps in all) after each step; an exception that it raises ends the run. With several
        windows each window of a step counts as a step.

    Returns
    -------
    dict of str to Tensor
        Scaled latents ``[B, ...]`` of the streams that are not held.

    Raises
    ------
    ValueError
        For an argument that is out of range or does not fit another one.
    """
    prompt.check()
    for name, values in noise.items():
        as_latent(values, f"The {name} noise")
    require_number(settings.start_strength, "fidelity", 0, 1)
    require_number(alignment.modality_guidance, "alignment_scale", -MAX_SCALE, MAX_SCALE)
    windows = windows or [Window(0.0, 0.0, {})]
    run = _Run(diffuser, noise, prompt, settings, alignment, dict(held or {}), windows)
    timesteps = run.begin(noise, dict(start or {}), latent_means or {})
    total = len(timesteps) * len(windows)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, total)

    for number, t in enumerate(timesteps):
        done = number * len(windows)
        eps = run.predict(t, lambda window, done=done: report(done + window))
        eps = run.prune(eps, t, last=number + 1 == len(timesteps))
        run.step(eps, t)
        report(done + len(windows))
    return run.latents


class _Run:
    """The state of one run: latents, and all that has a row for each candidate of each result."""

    def __init__(
        self,
        diffuser: Diffuser,
        noise: Latents,
        prompt: Prompt | PromptSchedule | Context | MixedContext,
        settings: SamplingSettings,
        alignment: AlignmentSettings,
        held: Latents,
        windows: Sequence[Window],
    ):
        self.diffuser, self.settings, self.alignment = diffuser, settings, alignment
        names = [name for name in noise if name not in held]
        if not names:
            raise ValueError("Every stream is held: name at least one output that is to be generated.")
        self.schedulers = {name: make_scheduler(settings.sampler, settings.steps) for name in names}
        if isinstance(prompt, Context):
            prompt = MixedContext((prompt,), (1.0,))
        self.windows = windows
        self.weights = {name: window_weights(windows, name, noise[name].shape[2:3].numel()) for name in names}
        if isinstance(prompt, PromptSchedule):
            prompts = [prompt.between(window.begin, window.end) for window in windows]
            prompt = prompts[0]
        else:
            prompts = [prompt]
        conditions = [_conditions(one, names[0]) for one in prompts]
        kept, self.scales = guidance.plan(settings.guidance, len(conditions[0]) - 1)
        self.like = prompt.embedding if isinstance(prompt, Prompt) else prompt.tokens
        self.num_candidates = settings.num_candidates
        if self.num_candidates > 1:
            require_comparable(diffuser.config, [*names, *held], alignment.mode)
        self.pruning = pruning_levels(self.num_candidates)
        # One row of conditions for all windows, or one for each.
        self.conditions = [[self._repeated(row[k]) for k in kept] for row in conditions]
        self.held = {name: self._repeated(z) for name, z in held.items()}
        self.generators = {
            name: step_generators(len(self.like), settings.seed, name, self.num_candidates) for name in names
        }
        self.draw = _draws(prompt, diffuser, settings.seed)
        self.latents: Latents = {}
        self.environment = self._held_environment()

    def begin(self, noise: Latents, start: Latents, means: Mapping[str, Sequence[float]]) -> Tensor:
        """Set the latents that the run begins with; returns the timesteps of its steps."""
        strength = self.settings.start_strength
        if strength > 0 and self.schedulers.keys() != start.keys():
            raise ValueError(
                f"A fidelity above 0 needs a start for {', '.join(self.schedulers)}, and for nothing else."
            )
        timesteps = next(iter(self.schedulers.values())).timesteps
        left = len(timesteps)
        signal = float(alphas_cumprod()[int(timesteps[0])].sqrt())
        for name, scheduler in self.schedulers.items():
            drawn = noise[name].to(self.like.device)
            if strength > 0:
                clean = self._repeated(start[name]).to(drawn)
                self.latents[name], left = _noised_start(scheduler, clean, drawn, strength)
            else:
                begin = drawn + signal * mean_latent(means, name).to(drawn)
                self.latents[name] = begin * scheduler.init_noise_sigma
        return timesteps[len(timesteps) - left :]

    def predict(self, t: Tensor, report: Callable[[int], None]) -> Latents:
        """The guided noise prediction of every stream at a timestep; `report` gets the number of windows done so far.

        It is not called for the last window, after which the step is not over.
        """
        streams, drawn = self._scaled(t), self.draw()
        if len(self.windows) == 1:
            return self._predict_window(0, streams, t, drawn)
        eps = {name: torch.zeros_like(z) for name, z in streams.items()}
        for number, window in enumerate(self.windows):
            if number:
                report(number)
            parts = {name: window.cut(name, z) for name, z in streams.items()}
            for name, part in self._predict_window(number, parts, t, drawn).items():
                blend(eps[name], part, window, name, self.weights[name][number])
        return eps

    def _predict_window(self, number: int, streams: Latents, t: Tensor, drawn: Mapping[str, Any]) -> Latents:
        """The guided noise prediction of the parts of all streams in one window."""
        mode, strength = self.alignment.mode, self.alignment.strength
        when = self._when(t)
        conditions = self.conditions[number if len(self.conditions) > 1 else 0]
        held = {name: self.windows[number].cut(name, z) for name, z in self.held.items()}
        shared: dict[str, Any] = {"strength": strength, **drawn}
        if held:
            shared["predict"] = list(self.schedulers)
        conditional = dict(shared)
        if self.environment is not None:
            conditional["environment"] = self.environment[number]
        scale = aligning.modality_guidance_at(self.alignment.modality_guidance, t, bool(held))
        full = self.diffuser(
            streams | held, when, conditions[-1], alignment=mode, modality_guidance=scale, **conditional
        )
        branch = aligning.for_branch(mode, is_conditional=False)
        # An unaligned branch has no use for held streams.
        present = streams | held if branch != "none" else streams
        others = [self.diffuser(present, when, c, alignment=branch, **shared) for c in conditions[:-1]]
        return {name: guidance.combine([*(e[name] for e in others), full[name]], self.scales) for name in streams}

    def prune(self, eps: Latents, t: Tensor, last: bool) -> Latents:
        """Drop candidates where the pruning schedule has a level; returns the rows of `eps` that are left."""
        while self.pruning and (t < self.pruning[0][0] or last):
            _, keep = self.pruning.pop(0)
            streams, when = self._scaled(t), self._when(t)
            clean = {name: clean_latent(eps[name], streams[name], when) for name in eps}
            rows = prune(self.diffuser, clean | self.held, self.num_candidates, keep, self.windows)
            self.num_candidates = keep
            self.latents, self.held, eps = (
                {name: z[rows] for name, z in group.items()} for group in (self.latents, self.held, eps)
            )
            self.conditions = [[c[rows] for c in conditions] for conditions in self.conditions]
            self.generators = {name: [own[i] for i in rows] for name, own in self.generators.items()}
            self.environment = self._held_environment()
            for scheduler in self.schedulers.values():
                _keep_rows(scheduler, rows)
        return eps

    def step(self, eps: Latents, t: Tensor) -> None:
        """One step of every stream's scheduler."""
        for name, scheduler in self.schedulers.items():
            generator = self.generators[name]
            self.latents[name] = scheduler.step(
                eps[name], t, self.latents[name], generator=generator, return_dict=False
            )[0]

    def _scaled(self, t: Tensor) -> Latents:
        """What the networks take: latents in the scale of the diffusion process that preserves variance."""
        return {name: self.schedulers[name].scale_model_input(x, t) for name, x in self.latents.items()}

    def _when(self, t: Tensor) -> Tensor:
        return t.to(self.like.device).expand(len(self.like) * self.num_candidates)

    def _repeated(self, rows: Any) -> Any:
        """``[B, ...]`` for all candidates: ``[num_candidates * B, ...]``."""
        return torch.cat([rows] * self.num_candidates) if self.num_candidates > 1 else rows

    def _held_environment(self) -> list[Latents] | None:
        """Environment tokens of held streams in each window, which do not change from step to step."""
        if not self.held or self.alignment.mode != "paper":
            return None
        return [
            self.diffuser.clean_environment({name: window.cut(name, z) for name, z in self.held.items()})
            for window in self.windows
        ]


def _keep_rows(scheduler: Any, rows: Tensor) -> None:
    """Keep only these rows in what a multi-step scheduler has stored of earlier steps."""
    if hasattr(scheduler, "model_outputs"):
        scheduler.model_outputs = [None if m is None else m[rows] for m in scheduler.model_outputs]


def _conditions(prompt: Prompt | MixedContext, output: str) -> list[Tensor | Contexts]:
    """What the diffuser is conditioned on in each prediction, from unconditional to fully conditional."""
    if isinstance(prompt, Prompt):
        return [prompt.unconditional, prompt.embedding]
    return [prompt.given(output, known) for known in range(len(prompt.contexts) + 1)]


def _draws(prompt: Prompt | MixedContext, diffuser: Diffuser, seed: int) -> Callable[[], dict[str, Any]]:
    """For mixing "layer": draws a context for every layer, anew for each step."""
    if isinstance(prompt, Prompt) or prompt.mixing != "layer":
        return dict
    generator = torch.Generator().manual_seed(seed)
    return lambda: {"drawn": draw_contexts(prompt.ratios, diffuser.num_shared_layers, generator)}


def _noised_start(scheduler: Any, clean: Tensor, noise: Tensor, strength: float) -> tuple[Tensor, int]:
    """The start of a stream, noised to the level of the first step that is left, and how many steps are left."""
    if isinstance(scheduler, ReleasedDDIM):
        return scheduler.begin(clean, noise, strength)
    count = len(scheduler.timesteps)
    left = math.floor(count * (1 - strength) + 0.5)
    if left == 0:
        return clean, 0
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(count - left)
    return scheduler.add_noise(clean, noise, scheduler.timesteps[count - left].expand(len(clean))), left
