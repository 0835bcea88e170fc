"""Classifier-free guidance with a scale for each stream."""

from __future__ import annotations

import comfy.samplers
import torch
from comfy_api.latest import io

from ...codi_backend.checks.numbers import MAX_SCALE as MAX_CFG
from ...codi_backend.checks.numbers import require_number
from ...codi_backend.sampling.guidance import combine
from ..latents.empty import codi_config
from ..runtime.latent_packing import STREAMS, split
from ..runtime.sample_wrapper import check_latent
from ..runtime.types import CATEGORY

# The small CoDi's guidance.
DEFAULT_CFG = 2.5


class StreamGuider(comfy.samplers.CFGGuider):
    """ComfyUI's guider, with a scale for each stream of a joint latent.

    With the same scale for all streams of a latent it is ComfyUI's.
    """

    def set_cfgs(self, cfgs: dict[str, float]) -> None:
        """Scales by the name of the modality."""
        self.cfgs = {name: require_number(cfg, f"cfg_{name}", -MAX_CFG, MAX_CFG) for name, cfg in cfgs.items()}

    def sample(self, noise, latent_image, *arguments, **named):
        streams = split(latent_image)
        names = check_latent([stream.shape for stream in streams], codi_config(self.model_patcher))
        scales = [self.cfgs[name] for name in names]
        self.set_cfg(max(scales))
        self.packed_scale = None
        if len(set(scales)) > 1:
            device = self.model_patcher.load_device
            packed = [torch.full((1, 1, z[0].numel()), scale, device=device) for z, scale in zip(streams, scales)]
            self.packed_scale = torch.cat(packed, -1)
        return super().sample(noise, latent_image, *arguments, **named)

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        model_options = model_options or {}
        if self.packed_scale is not None:
            guide = model_options.get("sampler_cfg_function", _guide)
            scale = {"cond_scale": self.packed_scale}
            # Where the largest scale is 1, others below it need the negative prompt all the same.
            model_options = model_options | {
                "sampler_cfg_function": lambda inputs: guide(inputs | scale),
                "disable_cfg1_optimization": True,
            }
        return super().predict_noise(x, timestep, model_options, seed)


def _guide(inputs: dict) -> torch.Tensor:
    return combine([inputs["uncond"], inputs["cond"]], [inputs["cond_scale"]])


def cfg_input(name: str = "cfg", of: str = "") -> io.Input:
    return io.Float.Input(
        name,
        default=DEFAULT_CFG,
        min=0.0,
        max=MAX_CFG,
        step=0.1,
        round=0.01,
        tooltip=f"Guidance scale{of}; 1 is no guidance. Use 2.5 for the built-in CoDi, 3.5 for the built-in "
        "Versatile Diffusion, 7.5 for the published models.",
    )


class CoDiGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiGuider",
            display_name="CoDi Guider",
            category=f"{CATEGORY}/sampling",
            description="Guidance with a scale for each stream, for SamplerCustomAdvanced. "
            "With equal scales it is the stock CFGGuider.",
            search_aliases=["cfg guider", "guidance per stream", "classifier-free guidance", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="A CoDi model."),
                io.Conditioning.Input("positive", tooltip="The prompt."),
                io.Conditioning.Input("negative", tooltip="The unconditional embedding, or a negative prompt."),
                *(cfg_input(f"cfg_{name}", f" of the {name} stream") for name in STREAMS),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, **cfgs: float) -> io.NodeOutput:
        codi_config(model)  # raises for another model
        guider = StreamGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfgs({name: cfgs[f"cfg_{name}"] for name in STREAMS})
        return io.NodeOutput(guider)
