"""Noise on a joint latent, as a sampler would add it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.sampler_helpers
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..runtime.latent_packing import join, require_latent, samples_of, split, split_masks
from ..runtime.types import CATEGORY


class CoDiAddNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiAddNoise",
            display_name="CoDi Add Noise",
            category=f"{CATEGORY}/latent",
            description="AddNoise for joint latents of any models: adds the noise at which a sampler with these sigmas "
            "begins. Held streams and parts with mask 0 stay as they are.",
            search_aliases=["add noise", "noise latent", "joint latent", "nested latent", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="The model of the latent, which scales latents and noise."),
                io.Noise.Input("noise", tooltip="Such as RandomNoise."),
                io.Sigmas.Input("sigmas", tooltip="The noise goes from the last to the first of these."),
                io.Latent.Input("latent_image", tooltip="A latent of one or more streams."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The noisy latent.")],
        )

    @classmethod
    def execute(cls, model, noise, sigmas, latent_image) -> io.NodeOutput:
        streams = split(samples_of(latent_image, "latent_image"))
        for number, stream in enumerate(streams, start=1):
            require_latent(stream, "latent_image", f"number {number}")
        if len(sigmas) == 0:
            return io.NodeOutput(latent_image)
        sigma = torch.abs(sigmas[0] - sigmas[-1]) if len(sigmas) > 1 else sigmas[0]
        clean, shapes = _packed(streams)
        added, _ = _packed(split(noise.generate_noise(latent_image)))
        network = model.model
        with _sampling(network, shapes):
            scaled = model.get_model_object("process_latent_in")(clean) if clean.any() else clean
            sampling = model.get_model_object("model_sampling")
            noisy = sampling.noise_scaling(sigma, added.to(scaled), scaled)
            # The form in which samplers pass on noise that is left, and in which they take a latent without adding any.
            noisy = model.get_model_object("process_latent_out")(sampling.inverse_noise_scaling(sigma, noisy))
        if not noisy.isfinite().all():
            raise ValueError(
                f"sigmas: at {float(sigma):g} nothing is left of this model's latent; begin at a lower one, or let the "
                "sampler add the noise."
            )
        masks = split_masks(latent_image)
        if any(mask is not None for mask in masks):
            noisy = noisy.lerp(clean, 1 - _packed_masks(streams, masks).to(clean))
        result = comfy.utils.unpack_latents(noisy, shapes)
        return io.NodeOutput(latent_image | {"samples": join([z.clone() for z in result])})


def _packed(streams: list[Tensor]) -> tuple[Tensor, list]:
    """What the core's samplers run on: a single stream, or ``[B, 1, N]`` of several; and the streams' shapes."""
    return comfy.utils.pack_latents(streams) if len(streams) > 1 else (streams[0], [streams[0].shape])


def _packed_masks(streams: list[Tensor], masks: list[Tensor | None]) -> Tensor:
    full = [
        torch.ones_like(z) if mask is None else comfy.sampler_helpers.prepare_mask(mask, z.shape, z.device)
        for z, mask in zip(streams, masks)
    ]
    return _packed(full)[0]


@contextmanager
def _sampling(network, shapes: list) -> Iterator[None]:
    """Models scale packed latents by the streams' shapes, which the core sets where it samples."""
    before = network.latent_shapes
    network.latent_shapes = shapes
    try:
        yield
    finally:
        network.latent_shapes = before
