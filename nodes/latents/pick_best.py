"""Best-of-N selection of joint results."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io

from ...codi_backend.modalities import modality
from ...codi_backend.sampling.best_of_n import select
from ...codi_backend.sampling.coupling import ratios
from ...codi_backend.sampling.windows import plan_windows
from ..runtime.coupler_model import CouplerModel
from ..runtime.latent_packing import require_latent, samples_of, split, to_backend
from ..runtime.model import Model
from ..runtime.sample_wrapper import check_latent
from ..runtime.stream_masks import select_rows
from ..runtime.types import CATEGORY, CouplerType
from .batch import batch_size_of
from .empty import codi_config


class CoDiPickBest(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiPickBest",
            display_name="CoDi Pick Best",
            category=f"{CATEGORY}/latent",
            description="Selects the joint result of a batch whose streams agree best: by the InfoNCE score of a CoDi "
            "model's environment encoders, or by a coupler's log density ratio for latents of any models. Generate "
            "several results of one prompt at once and decode the best.",
            search_aliases=["best of n", "rerank", "candidates", "select from batch", "agreement", "codi"],
            inputs=[
                io.Model.Input("model", optional=True, tooltip="The CoDi model that made the results."),
                io.Latent.Input("samples", tooltip="Several results of one prompt, each with at least two streams."),
                CouplerType.Input(
                    "coupler",
                    optional=True,
                    tooltip="A coupler instead of a model, for results of any models whose latents it knows.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The best result with all its streams.")],
        )

    @classmethod
    def execute(cls, samples, model=None, coupler=None) -> io.NodeOutput:
        streams = split(samples_of(samples))
        if (model is None) == (coupler is None):
            raise ValueError("model, coupler: one of them scores the results; connect exactly one.")
        if len(streams) < 2:
            raise ValueError(
                "samples: results are scored by the agreement of their streams, but there is only one stream; switch "
                "another on in CoDi Empty Latent, or join one with CoDi Join Latents."
            )
        best = _best_of_model(model, samples) if coupler is None else _best_of_coupler(coupler, samples)
        return io.NodeOutput(select_rows(samples, [best]))


def _best_of_model(model, samples) -> int:
    """The index in the batch of the result with the best InfoNCE score of a CoDi model."""
    config, streams = codi_config(model), split(samples["samples"])
    names = check_latent([stream.shape for stream in streams], config, "samples")
    if unaligned := config.diffuser.unaligned(names):
        raise ValueError(
            f"model: {config.name!r} has no latent alignment for {', '.join(unaligned)} to score results with; "
            "load a later edition."
        )
    for name, stream in zip(names, streams):
        require_latent(stream, "samples", name)
    network: Model = model.model
    memory = max(network.memory_required(list(stream.shape)) for stream in streams)
    comfy.model_management.load_models_gpu([model], memory)
    scaled = split(network.process_latent_in(samples["samples"]))
    latents = {
        name: to_backend(z.to(model.load_device, network.get_dtype_inference()), name) for name, z in zip(names, scaled)
    }
    lengths = {name: z.shape[2] for name, z in latents.items() if modality(name).time_axis}
    return select(network.diffusion_model.diffuser, latents, plan_windows(network.codi_config, lengths))


def _best_of_coupler(coupler, samples) -> int:
    """The index in the batch of the result with the greatest log density ratio of a coupler, at noise level 0."""
    if not isinstance(coupler, CouplerModel):
        raise ValueError("coupler: this is none; connect CoDi Load Coupler or CoDi Train Coupler.")
    streams = split(samples["samples"])
    batch_size_of(samples)
    for number, stream in enumerate(streams, start=1):
        require_latent(stream, "samples", f"number {number}")
    spaces = coupler.match([stream.shape for stream in streams])
    coupler.load()
    device = coupler.patcher.load_device
    clean = [stream.to(device, torch.float32) for stream in streams]
    return int(ratios(coupler.coupler, spaces, clean).argmax())
