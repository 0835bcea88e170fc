"""One stream of a coupled run: a guider's denoiser, entered through the guider's own `sample`."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import comfy.model_management as mm
import comfy.samplers
import torch
from torch import Tensor

from .noise_levels import NoiseConvention, sigmas, translate, translate_back

POST_CFG = "sampler_post_cfg_function"
MASK_FUNCTION = "denoise_mask_function"


class Stream:
    """A stream with its guider.

    Parameters
    ----------
    guider
        A GUIDER, used for this run only.
    noise, latent : Tensor
        ``[B, C, ...]``, as the sampler node gives them; the latent in VAE units.
    mask : Tensor or None
        Noise mask; 1 where the stream is generated.
    lead : NoiseConvention
        The convention of the sampler's state and sigmas.
    """

    def __init__(self, guider: Any, noise: Tensor, latent: Tensor, mask: Tensor | None, lead: NoiseConvention):
        self.guider, self.noise, self.latent, self.mask, self.lead = guider, noise, latent, mask, lead
        self.patcher = guider.model_patcher
        self.sampling = self.patcher.get_model_object("model_sampling")
        self.convention = NoiseConvention.of(self.sampling)
        self.sigma_max = float(self.sampling.sigma_max)
        self.is_held = (
            mask is not None and not torch.count_nonzero(mask) and MASK_FUNCTION not in self.patcher.model_options
        )
        self.output: Tensor | None = None

    def sigmas(self, values: Tensor) -> Tensor:
        """The sampler's sigmas in this model's convention."""
        return sigmas(values, self.lead, self.convention, self.sigma_max)

    def capture(self, model_wrap, values: Tensor, extra_args, callback, noise: Tensor, latent: Tensor, mask) -> None:
        """Take over what the guider gives its sampler; see `comfy.samplers.KSAMPLER.sample`."""
        self.model_wrap, self.own_sigmas, self.callback = model_wrap, values, callback
        self.options = extra_args["model_options"]
        self.scaled_noise, self.scaled_latent, self.scaled_mask = noise, latent, mask
        self.latent_shapes = getattr(model_wrap.inner_model, "latent_shapes", None)

    def draw_mask_noise(self, sampler: Any, seed: int | None) -> None:
        """Draw the noise of masked parts anew for samplers of the core that want it, as these do."""
        if getattr(sampler, "inpaint_options", {}).get("random", False):
            generator = torch.Generator().manual_seed((41 if seed is None else seed) + 1)
            self.scaled_noise = torch.randn(self.scaled_noise.shape, generator=generator).to(self.scaled_noise)

    def begin(self, sigma: Tensor, noise: Tensor, latent: Tensor) -> Tensor:
        """The noisy latent at which the guider alone would begin, brought to the sampler's convention and `sigma`."""
        first, device = self.own_sigmas[:1], self.own_sigmas.device
        view = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=self.sampling))
        whole = comfy.samplers.Sampler().max_denoise(view, self.own_sigmas)
        state = self.sampling.noise_scaling(first[0], noise.to(device), latent.to(device), whole)
        return translate_back(state, first, sigma.reshape(1).to(device), self.lead, self.convention)

    def predict(self, state: Tensor, sigma: Tensor, options: dict[str, Any], seed: int | None) -> Prediction:
        """The guider's prediction at a state and sigma of the sampler.

        `options` are what the sampler adds to the model options, functions after guidance excepted.
        """
        mm.throw_exception_if_processing_interrupted()
        device = self.scaled_latent.device
        latent, sigma = translate(state.to(device), sigma.to(device), self.lead, self.convention, self.sigma_max)
        mask = self.scaled_mask
        if mask is not None:
            if MASK_FUNCTION in self.options:
                known = {"model": self.model_wrap, "sigmas": self.own_sigmas}
                mask = self.options[MASK_FUNCTION](sigma, mask, extra_options=known)
            kept = self.model_wrap.inner_model.scale_latent_inpaint(
                x=latent, sigma=sigma, noise=self.scaled_noise, latent_image=self.scaled_latent, denoise_mask=mask
            )
            latent = latent * mask + kept * (1.0 - mask)
        prediction = Prediction(self, latent, sigma, mask)
        prediction.denoised = self.model_wrap(
            latent, sigma, model_options=_merged(self.options, options, prediction.record), seed=seed
        )
        return prediction

    @property
    def data_factor(self) -> float:
        """What this model's clean latents are multiplied by in the sampler's state."""
        return self.lead.data / self.convention.data

    def to_state(self, clean: Tensor, device: torch.device) -> Tensor:
        """Clean latents of this model in the sampler's state."""
        return (clean if self.data_factor == 1 else clean * self.data_factor).to(device)

    def from_state(self, clean: Tensor) -> Tensor:
        """The inverse of `to_state`."""
        clean = clean.to(self.scaled_latent.device)
        return clean if self.data_factor == 1 else clean / self.data_factor


class Prediction:
    """What a guider predicts for a stream at one noise level.

    Attributes
    ----------
    latent : Tensor
        The noisy latent that the model saw, in its own convention, at `sigma` ``[B]``.
    denoised : Tensor
        The clean latent as predicted.
    guidance : dict
        The arguments of functions after guidance; empty if the guider calls none.
    """

    def __init__(self, stream: Stream, latent: Tensor, sigma: Tensor, mask: Tensor | None):
        self.stream, self.latent, self.sigma, self.mask = stream, latent, sigma, mask
        self.guidance: dict[str, Any] = {}
        self.denoised = latent

    def record(self, arguments: dict[str, Any]) -> Tensor:
        """A function after guidance that changes nothing."""
        self.guidance = arguments
        return arguments["denoised"]

    def guided(self, name: str) -> Tensor:
        """A prediction among the arguments of functions after guidance, such as ``uncond_denoised``."""
        return self.guidance.get(name, self.denoised)

    def masked(self, denoised: Tensor) -> Tensor:
        """A denoised prediction with the kept parts put back."""
        return denoised if self.mask is None else denoised * self.mask + self.stream.scaled_latent * (1.0 - self.mask)


def _merged(options: dict[str, Any], added: dict[str, Any], record: Callable) -> dict[str, Any]:
    """Model options of a guider with those that the sampler adds, and `record` as the last function after guidance."""
    result = dict(options)
    for key, value in added.items():
        result[key] = [*options.get(key, ()), *value] if isinstance(value, list) else value
    result[POST_CFG] = [*options.get(POST_CFG, ()), record]
    return result
