"""Classifier-free guidance with a scale for each of several contexts."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ...codi_backend.checks.numbers import require_number
from ...codi_backend.conditioning.context import MixedContext
from ...codi_backend.sampling.guidance import combine, plan
from ..latents.empty import codi_config
from ..runtime.context_tokens import to_conditioning, to_contexts
from ..runtime.growing_inputs import growing, numbered, partners
from ..runtime.types import CATEGORY
from ..samplers.guider import MAX_CFG, cfg_input
from .mix import MAX_CONTEXTS


class ContextGuider(comfy.samplers.CFGGuider):
    """ComfyUI's guider with a scale for each context of a mixture. With equal scales it equals ComfyUI's."""

    def set_contexts(self, mixed: MixedContext, scales: list[float]) -> None:
        """One scale for each context, see `guidance.plan`."""
        count = len(mixed.contexts)
        names = ["negative", *(f"{known} of {count} contexts" for known in range(1, count)), "positive"]
        kept, self.scales = plan(scales, count)
        self.order = [names[known] for known in kept]
        self.set_cfg(scales[0])
        self.inner_set_conds({names[k]: to_conditioning(mixed, k) for k in (0, count, *kept)})

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        if self.order == ["negative", "positive"]:
            return super().predict_noise(x, timestep, model_options or {}, seed)
        conds = [self.conds[name] for name in self.order]
        guesses = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options or {})
        guess = combine(guesses, self.scales)
        # Other nodes patch what follows guidance.
        return comfy.samplers.cfg_function(
            self.inner_model,
            guess,
            guesses[0],
            1.0,
            x,
            timestep,
            model_options=model_options or {},
            cond=conds[-1],
            uncond=conds[0],
        )


class CoDiContextGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiContextGuider",
            display_name="CoDi Context Guider",
            category=f"{CATEGORY}/sampling",
            description="Guidance with a scale for each context of a mixture, for SamplerCustomAdvanced. "
            "With equal scales it is the stock CFGGuider.",
            search_aliases=["cfg guider", "dual cfg", "guidance per context", "versatile diffusion", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="A Versatile Diffusion from CoDi Load Model."),
                io.Conditioning.Input("positive", tooltip="The mixture, from CoDi Mix Contexts."),
                io.Conditioning.Input("negative", tooltip="The unconditional output of the same node."),
                cfg_input(),
                growing(
                    "cfgs",
                    io.Float.Input("cfg", tooltip="Guidance scale of the context with the same number."),
                    MAX_CONTEXTS,
                    "Guidance scales of the contexts, numbered as in CoDi Mix Contexts. The default is cfg.",
                ),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, cfg, cfgs=None) -> io.NodeOutput:
        codi_config(model)  # raises for another model
        mixed = to_contexts("positive", positive, "negative", negative)
        names = numbered("context", len(mixed.contexts))
        cfg = require_number(cfg, "cfg", -MAX_CFG, MAX_CFG)
        given = partners(names, "cfg", cfgs)
        scales = [cfg if one is None else require_number(one, "cfgs", -MAX_CFG, MAX_CFG) for one in given]
        guider = ContextGuider(model)
        try:
            guider.set_contexts(mixed.expand(max(len(c.tokens) for c in mixed.contexts)), scales)
        except ValueError as error:
            raise ValueError(f"cfgs: {error}") from error
        return io.NodeOutput(guider)
