"""`CoDi.generate`: from prompts to outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checks.inputs import as_pixels
from .checks.numbers import MAX_SEED, require_number, require_whole
from .conditioning.context import Context, MixedContext
from .conditioning.prompt import Prompt
from .conditioning.schedule import PromptSchedule, schedule
from .modalities import MODALITIES
from .models.diffuser.diffuser import Strength
from .sampling.auxiliary import auxiliary_streams
from .sampling.best_of_n import default_candidates
from .sampling.latents import sample_latents
from .sampling.noise import MAX_CANDIDATES
from .sampling.settings import AlignmentSettings, SamplingSettings, WindowSettings

if TYPE_CHECKING:
    from .config import CoDiConfig
    from .models.diffuser import Diffuser


class GenerationMixin:
    """What `CoDi` generates, by its diffuser and autoencoders."""

    config: CoDiConfig
    diffuser: Diffuser

    def auxiliary_streams(
        self, outputs: Collection[str], held: Collection[str] = (), alignment: str = "paper", fidelity: float = 0.0
    ) -> list[str]:
        """Streams that are sampled beside the outputs and dropped at the end, see `sampling.auxiliary`."""
        fidelity = require_number(fidelity, "fidelity", 0, 1)
        wanted = auxiliary_streams(self.config, outputs, held, alignment, fidelity)
        return [name for name in wanted if name in self.outputs]

    def generate(
        self,
        prompts: Prompt | Sequence[tuple[Prompt, float]] | Context | MixedContext,
        outputs: Sequence[str],
        steps: int | None = None,
        guidance: float | Sequence[float] | None = None,
        seed: int = 0,
        sampler: str | None = None,
        alignment: str = "paper",
        strength: Strength = 1.0,
        alignment_scale: float | None = None,
        progress: Callable[[int, int], None] | None = None,
        image_size: int | None = None,
        frames: int | None = None,
        seconds: float | None = None,
        held: Mapping[str, Tensor] | None = None,
        start: Tensor | Mapping[str, Tensor] | None = None,
        fidelity: float = 0.0,
        candidates: int | None = None,
        window: float | None = None,
        overlap: float | None = None,
    ) -> dict[str, Any]:
        """Generate a set of outputs together from a batch of prompts.

        Parameters
        ----------
        prompts : Prompt, or sequence of (Prompt, float), or Context or MixedContext
            From `prompt` or `interpolate`; for models with layers per kind of context from `context`, `concatenate` or
            `mix`. Its batch size B is the number of results. Pairs of a prompt and the seconds at which it starts
            change the prompt within a clip: each window has the prompt of its time, or a mixture by time.
        outputs : sequence of str
            Modalities to generate; their order does not matter. See also `auxiliary_streams`.
        steps, sampler, guidance : optional
            How to sample, the model's own way by default: with how many steps; "dpmpp_2m", "dpmpp_2m_sde" (which adds
            noise in every step), "ddim", "euler" or "ddim_released"; and by which classifier-free guidance scale, or
            by one for each of several contexts.
        seed : int
            Fixes the noise of every stream of every result, whatever else is generated.
        alignment, strength, alignment_scale
            See `sample`; the scale is the model's own by default.
        progress : callable, optional
            See `sample`.
        image_size, frames, seconds : optional
            Size of images and videos in pixels; length of all streams that have time, in frames of a video or in
            seconds. If both are given, they must agree within a step of the latents. The model's own by default; see
            `codi_backend.modalities.lengths`.
        held : dict of str to Tensor, optional
            Latents in VAE units, ``[B, ...]`` or ``[1, ...]``, by modality. The other streams attend to these. They
            stay as they are, and those that `outputs` names are among the results.
        start : Tensor, or dict of str to Tensor, optional
            What a run begins with: images ``[B, 3, H, W]`` or ``[1, 3, H, W]`` in 0..1 of the size that is generated;
            or latents in VAE units of all outputs by modality, as for `held`.
        fidelity : float
            How much of the start stays, see `sample`; 1 returns it as it is.
        candidates : int, optional
            Of how many candidates each result is the one whose streams agree best, see `sample`; the model's own number
            by default, and 1 where they could not be compared. 6 take about three times as long as 1. A result is the
            same however many results are asked for.
        window, overlap : optional
            Clips that are longer than `window` seconds are denoised in windows that overlap by `overlap` seconds, with
            the memory of one window. By default a window is as long as the clips of the model's training, and a
            quarter of it overlaps. ``math.inf`` denoises up to 120 frames at once. See `WindowSettings`.

        Returns
        -------
        dict
            ``"image"``: ``[B, 3, H, W]`` in 0..1; ``"video"``: ``[B, 3, T, H, W]`` in 0..1; ``"audio"``:
            ``{"waveform": [B, 1, N] in -1..1, "sample_rate": int}``; ``"text"``: list of str.

        Raises
        ------
        ValueError
            For an output that this model lacks, or an argument out of range.
        """
        start_image = None
        if torch.is_tensor(start):
            start_image = _start_image(start)
            start = {"image": self.encode("image", start_image)}
        latents = self.generate_latents(
            prompts=prompts,
            outputs=outputs,
            steps=steps,
            guidance=guidance,
            seed=seed,
            sampler=sampler,
            alignment=alignment,
            strength=strength,
            alignment_scale=alignment_scale,
            progress=progress,
            image_size=image_size,
            frames=frames,
            seconds=seconds,
            held=held,
            start=start,
            fidelity=fidelity,
            candidates=candidates,
            window=window,
            overlap=overlap,
        )
        if start_image is not None and fidelity == 1:
            return {"image": start_image.expand(len(latents["image"]), -1, -1, -1)}
        results: dict[str, Any] = {}
        for name, z in latents.items():
            results[name] = self.decode(name, z, seed=seed) if name == "text" else self.decode(name, z)
        if "audio" in results:
            rate = self.autoencoders["audio"].config.mel.sample_rate
            results["audio"] = {"waveform": results["audio"], "sample_rate": rate}
        return results

    def generate_latents(
        self,
        prompts: Prompt | Sequence[tuple[Prompt, float]] | Context | MixedContext,
        outputs: Sequence[str],
        steps: int | None = None,
        guidance: float | Sequence[float] | None = None,
        seed: int = 0,
        sampler: str | None = None,
        alignment: str = "paper",
        strength: Strength = 1.0,
        alignment_scale: float | None = None,
        progress: Callable[[int, int], None] | None = None,
        image_size: int | None = None,
        frames: int | None = None,
        seconds: float | None = None,
        held: Mapping[str, Tensor] | None = None,
        start: Mapping[str, Tensor] | None = None,
        fidelity: float = 0.0,
        candidates: int | None = None,
        window: float | None = None,
        overlap: float | None = None,
    ) -> dict[str, Tensor]:
        """Like `generate`, without the decoding: latents in VAE units by modality."""
        if not outputs:
            raise ValueError(f"No outputs were asked for: choose from {', '.join(self.outputs)}.")
        if len(set(outputs)) < len(outputs):
            raise ValueError(f"An output is named twice in {', '.join(outputs)}: name each once.")
        held, start = held or {}, start or {}
        if held and self.config.diffuser.contexts:
            raise ValueError("No stream attends to a held stream in this model: leave it out.")
        if strange := [name for name in start if name not in outputs or name in held]:
            raise ValueError(f"There is a start for {strange[0]}, which is not generated: leave it out.")
        for name in (*outputs, *held):
            if lacking := self._lacking(name):
                raise ValueError(f"This model cannot generate {name}: {self._advice(lacking[0])}.")
        auxiliary = self.auxiliary_streams(outputs, held, alignment, fidelity)
        if candidates is None:
            candidates = default_candidates(self.config, {*outputs, *auxiliary, *held}, alignment)
        settings = SamplingSettings(
            **self.config.sampling(steps, sampler, guidance),
            seed=require_whole(seed, "seed", 0, MAX_SEED),
            num_candidates=require_whole(candidates, "candidates", 1, MAX_CANDIDATES),
            start_strength=fidelity,
        )
        scale = self.config.modality_guidance if alignment_scale is None else alignment_scale
        prompts = self._checked(prompts)
        streams = [name for name in MODALITIES if name in {*outputs, *auxiliary, *held}]
        if isinstance(prompts, PromptSchedule):
            results = len(prompts)
        else:
            results = len(prompts.embedding if isinstance(prompts, Prompt) else prompts.tokens)
        return sample_latents(
            self.diffuser,
            self.config,
            prompts,
            outputs,
            {name: (results, *self.latent_shape(name, image_size, frames, seconds)) for name in streams},
            settings,
            AlignmentSettings(alignment, strength, scale),
            held=held,
            start=start,
            windows=WindowSettings(window, overlap),
            progress=progress,
        )

    def _checked(
        self, prompts: Prompt | Sequence[tuple[Prompt, float]] | Context | MixedContext
    ) -> Prompt | PromptSchedule | Context | MixedContext:
        """What guides this model, checked, where the diffuser is."""
        if isinstance(prompts, (list, tuple)):
            prompts = schedule(prompts)
        if not isinstance(prompts, (Prompt, PromptSchedule, Context, MixedContext)):
            raise ValueError(f"The prompts are a {type(prompts).__name__}: give what `prompt` or `context` makes.")
        if isinstance(prompts, (Prompt, PromptSchedule)) == bool(self.config.diffuser.contexts):
            needed = "context" if self.config.diffuser.contexts else "prompt"
            raise ValueError(f"This model is guided by what `{needed}` gives: use that.")
        prompts.check()
        return prompts.to(next(self.diffuser.parameters()))


def _start_image(pixels: Tensor) -> Tensor:
    pixels = as_pixels(pixels, "The start")
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"A run starts from images [B, 3, H, W], not {list(pixels.shape)}: give three channels.")
    return pixels.clamp(0, 1)
