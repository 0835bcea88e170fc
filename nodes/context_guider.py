"""Classifier-free guidance with a scale for each of several contexts."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ..codi_backend.checks import require_number
from ..codi_backend.contexts import MixedContext
from ..codi_backend.sampling import guidance_steps
from .context_mix import MAX_CONTEXTS
from .context_tokens import to_conditioning, to_contexts
from .guider import MAX_CFG, cfg_input
from .latents import codi_config
from .numbered import growing, numbered, partners
from .types import CATEGORY


class ContextGuider(comfy.samplers.CFGGuider):
    """ComfyUI's guider, with a scale for each context of a mixture; with equal scales it is ComfyUI's."""

    def set_contexts(self, mixed: MixedContext, scales: list[float]) -> None:
        """Contexts are made known one by one, see `guidance_steps`."""
        count = len(mixed.contexts)
        names = ["negative", *(f"knowing {known}" for known in range(1, count)), "positive"]
        kept, self.scales = guidance_steps(scales, count)
        self.order = [names[known] for known in kept]
        self.set_cfg(scales[0])
        self.inner_set_conds({names[k]: to_conditioning(mixed, k) for k in (0, count, *kept)})

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        if self.order == ["negative", "positive"]:
            return super().predict_noise(x, timestep, model_options or {}, seed)
        conds = [self.conds[name] for name in self.order]
        guesses = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options or {})
        guess = guesses[0]
        for scale, less, more in zip(self.scales, guesses, guesses[1:]):
            guess = guess + scale * (more - less)
        # What other nodes do after guidance they do to this.
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
                    io.Float.Input("cfg", tooltip="How far the context of the same number leads."),
                    MAX_CONTEXTS,
                    "Scales of the contexts by their numbers in CoDi Mix Contexts. A context without one has cfg.",
                ),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, cfg, cfgs=None) -> io.NodeOutput:
        codi_config(model)  # says so if it is another model
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
