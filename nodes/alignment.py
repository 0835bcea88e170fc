"""How the streams of a joint run listen to each other."""

from __future__ import annotations

from comfy_api.latest import io

from .model import OPTIONS
from .types import CATEGORY

MODES = ["paper", "released", "none"]


class CoDiAlignment(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiAlignment",
            display_name="CoDi Alignment",
            category=f"{CATEGORY}/sampling",
            description="Sets how the streams of a joint run listen to each other while they are denoised.",
            search_aliases=["latent alignment", "coupling", "joint", "cross-modal", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="A CoDi model."),
                io.Combo.Input(
                    "mode",
                    options=MODES,
                    default="paper",
                    tooltip="paper: every stream listens to the others. released: every stream listens to itself, as "
                    "the published code does. none: the streams share the prompt and nothing else.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How much of what a stream hears is added to it; 1 is how the model was trained.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The same model with this alignment.")],
        )

    @classmethod
    def execute(cls, model, mode, strength) -> io.NodeOutput:
        patched = model.clone()
        options = patched.model_options["transformer_options"]
        options[OPTIONS] = options.get(OPTIONS, {}) | {"alignment": mode, "strength": strength}
        return io.NodeOutput(patched)
