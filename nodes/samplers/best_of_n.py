"""Best-of-N around any sampler of ComfyUI: the same selection as `codi generate` makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...codi_backend.modalities import MODALITIES
from ...codi_backend.sampling.best_of_n import prune, pruning_levels, require_comparable
from ..runtime.alignment_options import mode_of
from ..runtime.context_windows import windows_of
from ..runtime.latent_packing import names_of, to_backend


class BestOfN(comfy.samplers.Sampler):
    """Samples several candidates for each result, and prunes them on the way.

    The sigmas are cut where the pruning schedule has a level. Each piece is a run of the wrapped sampler, so that every
    sampler of ComfyUI can be wrapped; a multi-step sampler begins each piece with a step of first order. At a cut the
    model predicts the clean latents, by which candidates are compared.

    Parameters
    ----------
    sampler : comfy.samplers.Sampler
    num_candidates : int
        N. `sample` takes the noise of B results; their first candidates begin with it.
    """

    def __init__(self, sampler: comfy.samplers.Sampler, num_candidates: int):
        self.sampler, self.num_candidates = sampler, num_candidates

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """See `comfy.samplers.KSAMPLER.sample`. ``[B, ...]`` in, ``[B, ...]`` out.

        `ValueError` where candidates cannot be compared.
        """
        model = model_wrap.inner_model
        model.num_candidates = 1  # from here on, the batch has them
        results, steps, number = len(noise), len(sigmas) - 1, self.num_candidates
        names = names_of(model.latent_shapes, model.codi_config)
        require_comparable(model.codi_config.diffuser, names, mode_of(extra_args["model_options"]))
        seed = extra_args.get("seed") or 0
        noise = candidate_noise(noise, seed, number)
        latent_image = _repeated(latent_image, number)
        denoise_mask = None if denoise_mask is None else _repeated(denoise_mask, number)
        x, done = None, 0

        def piece(end: int) -> Tensor:
            """Denoise from step `done` to step `end`."""
            if end == done:
                return x if x is not None else self._begin(model_wrap, sigmas, noise, latent_image)
            arguments = extra_args | {"seed": seed + done}  # noise of the steps that earlier pieces have not used
            report = callback and (lambda i, x0, z, _: callback(done + i, x0[:results], z[:results], steps))
            return self.sampler.sample(
                model_wrap, sigmas[done : end + 1], arguments, report, noise, latent_image, denoise_mask, disable_pbar
            )

        for timestep, keep in pruning_levels(number):
            cut = _first_below(model, sigmas, timestep)
            x, done = piece(cut), cut
            noise = (x - latent_image) / sigmas[cut]  # with which x is where the next piece begins
            wrapped = comfy.samplers.KSamplerX0Inpaint(model_wrap, sigmas)
            wrapped.latent_image, wrapped.noise = latent_image, noise
            sigma = sigmas[cut].expand(len(x))
            options = {"model_options": extra_args["model_options"], "seed": extra_args.get("seed")}
            clean = wrapped(x, sigma, denoise_mask=denoise_mask, **options)
            scaled = scaled_streams(model, names, clean)
            rows = prune(model.diffusion_model.diffuser, scaled, number, keep, windows_of(extra_args["model_options"]))
            number = keep
            x, noise, latent_image = x[rows], noise[rows], latent_image[rows]
            denoise_mask = None if denoise_mask is None else denoise_mask[rows]
        return piece(steps)

    def _begin(self, model_wrap: Any, sigmas: Tensor, noise: Tensor, latent_image: Tensor) -> Tensor:
        """The latents that the sampler would begin with."""
        sampling = model_wrap.inner_model.model_sampling
        return sampling.noise_scaling(sigmas[0], noise, latent_image, self.max_denoise(model_wrap, sigmas))


def candidate_noise(noise: Tensor, seed: int, num_candidates: int) -> Tensor:
    """Noise ``[B, ...]`` of the first candidates -> ``[num_candidates * B, ...]`` of all, the first ones first."""
    # Odd factors keep candidates of one seed apart from the first candidates of other seeds; 32 bits are used.
    seeds = ((seed * 0x9E3779B1 ^ number * 0x85EBCA6B) % 2**32 for number in range(1, num_candidates))
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    others = [torch.randn(noise.shape, generator=generator).to(noise) for generator in generators]
    return torch.cat([noise, *others])


def scaled_streams(model: Any, names: list[str], packed: Tensor) -> dict[str, Tensor]:
    """Scaled latents by modality, as the diffuser takes them, of a packed latent."""
    streams = comfy.utils.unpack_latents(packed, model.latent_shapes)
    dtype = model.get_dtype_inference()
    by_name = {name: to_backend(z.to(dtype), name) for name, z in zip(names, streams)}
    return {name: by_name[name] for name in MODALITIES if name in by_name}


def _repeated(rows: Tensor, number: int) -> Tensor:
    return rows.repeat(number, *[1] * (rows.ndim - 1))


def _first_below(model: Any, sigmas: Tensor, timestep: float) -> int:
    """The step that begins below a timestep, or the last one if none does."""
    steps = sigmas[:-1]
    below = (model.model_sampling.timestep(steps) < timestep).nonzero()
    return int(below[0]) if len(below) else len(steps) - 1
