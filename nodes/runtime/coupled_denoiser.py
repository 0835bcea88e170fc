"""The model that a sampler sees in a coupled run: all streams in one packed latent, in the convention of the lead."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import comfy.utils
from torch import Tensor

from .coupled_stream import POST_CFG, Prediction, Stream

TRANSFORMER = "transformer_options"


class JointDenoiser:
    """Denoises the packed latent of all streams that are not held.

    It has the attributes that samplers read from a guider: `inner_model` with the lead's `model_sampling`,
    `model_patcher` and `cfg`.

    Parameters
    ----------
    streams : sequence of Stream
        In the order of the packed latent, entered.
    lead : ModelPatcher
        The model whose schedule the sigmas are of.
    cfg : float
        Guidance scale of the lead, for logs.
    activate : callable
        Called with a stream before its model runs.
    correct : callable or None
        Adds the coupler's correction to the predictions of a noise level of the lead.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        lead: Any,
        cfg: float,
        activate: Callable[[Stream], None],
        correct: Callable[[Sequence[Prediction], Tensor], None] | None,
    ):
        self.streams, self.model_patcher, self.cfg = streams, lead, cfg
        self._activate, self._correct = activate, correct
        self.shapes = [stream.scaled_latent.shape for stream in streams]
        self.device = streams[0].scaled_latent.device
        self.inner_model = _LeadModel(lead, self._noise_scaling)

    def _noise_scaling(self, sigma: Tensor, noise: Tensor, latent: Tensor, max_denoise: bool | None = None) -> Tensor:
        """`noise_scaling` of the lead, in whose place each stream begins a run by its own model's rule."""
        if max_denoise is None:
            return self.model_patcher.get_model_object("model_sampling").noise_scaling(sigma, noise, latent)
        parts = zip(self.streams, self.unpack(noise), self.unpack(latent))
        return self.pack([stream.begin(sigma, *part) for stream, *part in parts])

    def pack(self, tensors: Sequence[Tensor]) -> Tensor:
        """``[B, ...]`` each -> ``[B, 1, N]``."""
        return comfy.utils.pack_latents([tensor.to(self.device) for tensor in tensors])[0]

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """The inverse of `pack`."""
        sizes = [math.prod(shape[1:]) for shape in self.shapes]
        parts = packed.split(sizes, -1)
        return [part.reshape(len(packed), *shape[1:]) for part, shape in zip(parts, self.shapes)]

    def __call__(self, x: Tensor, sigma: Tensor, model_options: dict[str, Any] | None = None, seed=None) -> Tensor:
        """Denoised latents ``[B, 1, N]`` of noisy ones at the lead's sigmas ``[B]``."""
        options = dict(model_options or {})
        after_guidance = options.pop(POST_CFG, [])
        options.pop(TRANSFORMER, None)
        predictions = []
        for stream, state in zip(self.streams, self.unpack(x)):
            self._activate(stream)
            predictions.append(stream.predict(state, sigma, options, seed))
        if self._correct is not None:
            self._correct(predictions, sigma)
        denoised = [p.denoised for p in predictions]
        if after_guidance:
            denoised = self._after_guidance(after_guidance, predictions, x, sigma, model_options)
        # In place of the sampler's own masks, since each stream has the mask function of its model.
        masked = [p.masked(z) for p, z in zip(predictions, denoised)]
        return self.pack([p.stream.to_state(z, self.device) for p, z in zip(predictions, masked)])

    def _after_guidance(self, functions, predictions: list[Prediction], x: Tensor, sigma: Tensor, options) -> list:
        """Call the sampler's functions after guidance once, on the packed predictions."""

        def packed(values) -> Tensor:
            return self.pack([p.stream.to_state(value, self.device) for p, value in zip(predictions, values)])

        lead = predictions[0].guidance
        arguments = {
            "denoised": packed(p.denoised for p in predictions),
            "cond_denoised": packed(p.guided("cond_denoised") for p in predictions),
            "uncond_denoised": packed(p.guided("uncond_denoised") for p in predictions),
            "cond": lead.get("cond"),
            "uncond": lead.get("uncond"),
            "cond_scale": lead.get("cond_scale", self.cfg),
            "model": self.inner_model,
            "sigma": sigma,
            "model_options": options,
            "input": x,
        }
        for function in functions:
            arguments["denoised"] = function(arguments)
        parts = self.unpack(arguments["denoised"])
        return [p.stream.from_state(part) for p, part in zip(predictions, parts)]

    def options(self, sigmas: Tensor) -> dict[str, Any]:
        """Model options for the sampler: those of the guiders stay with these."""
        return {TRANSFORMER: {"sample_sigmas": sigmas}}

    def close(self) -> None:
        """Break the circle of references between this and its `inner_model`."""
        self.inner_model = None


class _LeadModel:
    """The lead's BaseModel, whose `model_sampling` begins runs by `noise_scaling`."""

    def __init__(self, lead: Any, noise_scaling: Callable):
        self._model = lead.model
        # A copy is still of the class that samplers ask for.
        self.model_sampling = copy.copy(lead.get_model_object("model_sampling"))
        self.model_sampling.noise_scaling = noise_scaling

    def __getattr__(self, name: str):
        return getattr(self._model, name)
