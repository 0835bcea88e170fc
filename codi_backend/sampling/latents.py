"""From settings to sampled latents in VAE units: noise, held streams, start latents and scale factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..checks.inputs import as_latent
from ..conditioning.context import Context, MixedContext
from ..conditioning.prompt import Prompt
from ..conditioning.schedule import PromptSchedule
from ..config import CoDiConfig
from ..modalities import modality, scale_factor
from ..models.diffuser import Diffuser
from .noise import stream_noise
from .samplers import sample
from .settings import AlignmentSettings, SamplingSettings, WindowSettings
from .windows import plan_windows

Progress = Callable[[int, int], None]


def sample_latents(
    diffuser: Diffuser,
    config: CoDiConfig,
    prompt: Prompt | PromptSchedule | Context | MixedContext,
    outputs: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    settings: SamplingSettings,
    alignment: AlignmentSettings,
    *,
    held: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    windows: WindowSettings = WindowSettings(),  # noqa: B008, frozen
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Sample all streams and return the outputs.

    Parameters
    ----------
    outputs : sequence of str
        The modalities to return.
    shapes : dict of str to tuple of int
        ``(B, ...)`` of every stream of the run: outputs, auxiliary and held streams.
    held, start : dict of str to Tensor
        Latents in VAE units, ``[B, ...]`` or ``[1, ...]``.
    windows : WindowSettings
        Of clips that are longer than a window.
    progress : callable, optional
        See `sample`.

    Returns
    -------
    dict of str to Tensor
        Latents in VAE units by output. Held streams, and starts of strength 1, are returned bit for bit.

    Raises
    ------
    ValueError
        For latents that do not fit, or settings out of range.
    """
    like = prompt.prompts[0] if isinstance(prompt, PromptSchedule) else prompt
    like = like.embedding if isinstance(like, Prompt) else like.tokens
    held = {name: _fitting(f"held {name}", z, shapes[name]).to(like) for name, z in held.items()}
    start = {name: _fitting(f"start of {name}", z, shapes[name]).to(like) for name, z in start.items()}
    scale = {name: scale_factor(config, name) for name in shapes}
    lengths = {name: shape[modality(name).time_axis] for name, shape in shapes.items() if modality(name).time_axis}
    if isinstance(prompt, PromptSchedule) and not lengths:
        raise ValueError("prompts: no video or audio is generated, so prompts cannot start at times; give one prompt.")
    planned = plan_windows(config, lengths, windows)

    def run(streams: Sequence[str], progress: Progress | None) -> dict[str, Tensor]:
        noise = {
            name: stream_noise(shapes[name], settings.seed, name, num_candidates=settings.num_candidates).to(like.dtype)
            for name in streams
        }
        return sample(
            diffuser,
            noise,
            prompt,
            settings,
            alignment,
            held={name: z * scale[name] for name, z in held.items() if name in streams},
            start={name: z * scale[name] for name, z in start.items() if name in streams},
            latent_means=config.diffuser.latent_means,
            windows=planned,
            progress=progress,
        )

    if isinstance(prompt, (Prompt, PromptSchedule)):
        scaled = run(list(shapes), progress)
    else:  # the unconditional tokens depend on the output, and streams do not attend to each other
        scaled = {}
        for number, name in enumerate(outputs):
            scaled |= run([name], progress and _part(progress, number, len(outputs)))
    given = held | (start if settings.start_strength == 1 else {})
    return {name: given[name] if name in given else scaled[name] / scale[name] for name in outputs}


def _part(progress: Progress, number: int, runs: int) -> Progress:
    """Progress of all of several equally long runs, reported by the one with this number."""
    return lambda done, total: progress(number * total + done, runs * total)


def _fitting(what: str, latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Given latents at the batch size of the run: `shape`. `ValueError` for other shapes and impossible values."""
    if not torch.is_tensor(latents):
        raise ValueError(f"The {what} is a {type(latents).__name__}: give latents, as `encode` makes them.")
    if latents.shape[1:] != shape[1:] or len(latents) not in (1, shape[0]):
        raise ValueError(
            f"The {what} is {list(latents.shape)}, where {list(shape)} is needed: "
            "encode it at the size and length that are generated, for one result or for each."
        )
    return as_latent(latents, f"The {what}").expand(shape)
