"""Best-of-N selection of joint results."""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ...codi_backend.modalities import modality
from ...codi_backend.sampling.best_of_n import select
from ...codi_backend.sampling.windows import plan_windows
from ..runtime.latent_packing import (
    require_latent,
    samples_of,
    split,
    split_masks,
    to_backend,
    with_masks,
)
from ..runtime.model import Model
from ..runtime.sample_wrapper import check_latent
from ..runtime.types import CATEGORY
from .empty import codi_config


class CoDiPickBest(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiPickBest",
            display_name="CoDi Pick Best",
            category=f"{CATEGORY}/latent",
            description="Selects the joint result of a batch whose streams agree best, by the InfoNCE score of the "
            "model's environment encoders. Generate several results of one prompt at once and decode the best.",
            search_aliases=["best of n", "rerank", "candidates", "select from batch", "agreement", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="The CoDi model that made the results."),
                io.Latent.Input("samples", tooltip="Several results of one prompt, each with at least two streams."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The best result with all its streams.")],
        )

    @classmethod
    def execute(cls, model, samples) -> io.NodeOutput:
        config, streams = codi_config(model), split(samples_of(samples))
        names = check_latent([stream.shape for stream in streams], config, "samples")
        if len(names) < 2:
            raise ValueError(
                "samples: results are scored by the agreement of their streams, but there is only one stream; switch "
                "another on in CoDi Empty Latent."
            )
        if unaligned := config.diffuser.unaligned(names):
            raise ValueError(
                f"model: {config.name!r} has no latent alignment for {', '.join(unaligned)} to score results with; "
                "load a later edition."
            )
        for name, stream in zip(names, streams):
            require_latent(stream, "samples", name)
        best = _best(model, samples["samples"], names)

        def row(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or len(tensor) == 1 else tensor[best : best + 1]

        picked = with_masks(samples, [row(stream) for stream in streams], [row(mask) for mask in split_masks(samples)])
        if "batch_index" in picked:
            picked["batch_index"] = picked["batch_index"][best : best + 1]
        return io.NodeOutput(picked)


def _best(model, samples, names: list[str]) -> int:
    """The index in the batch of the result with the best score."""
    network: Model = model.model
    memory = max(network.memory_required(list(stream.shape)) for stream in split(samples))
    comfy.model_management.load_models_gpu([model], memory)
    scaled = split(network.process_latent_in(samples))
    latents = {
        name: to_backend(z.to(model.load_device, network.get_dtype_inference()), name) for name, z in zip(names, scaled)
    }
    lengths = {name: z.shape[2] for name, z in latents.items() if modality(name).time_axis}
    return select(network.diffusion_model.diffuser, latents, plan_windows(network.codi_config, lengths))
