"""Several contexts for one run."""

from __future__ import annotations

from comfy_api.latest import io

from ..codi_backend.contexts import MIXINGS, concatenate, mix
from .context_tokens import conditionings, single, to_contexts
from .numbered import growing, numbered, partners, weights_of
from .types import CATEGORY

MAX_CONTEXTS = 16
SIDE_BY_SIDE = "concatenate"
METHODS = (*MIXINGS, SIDE_BY_SIDE)


class CoDiMixContexts(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiMixContexts",
            display_name="CoDi Mix Contexts",
            category=f"{CATEGORY}/contexts",
            description="Lets several contexts guide one run: texts and images by shares, or images side by side.",
            search_aliases=["dual guidance", "multi context", "blend", "combine", "versatile diffusion", "codi"],
            inputs=[
                growing(
                    "contexts",
                    io.Conditioning.Input("context", tooltip="A context to mix."),
                    MAX_CONTEXTS,
                    "Contexts from CoDi Context nodes; a new socket appears when the last is connected.",
                    least=2,
                ),
                growing(
                    "unconditionals",
                    io.Conditioning.Input(
                        "unconditional", tooltip="What guidance leads away from, of the context of the same number."
                    ),
                    MAX_CONTEXTS,
                    "The unconditional outputs of the nodes that the contexts of the same numbers come from.",
                    least=2,
                ),
                growing(
                    "weights",
                    io.Float.Input("weight", tooltip="The share of the context of the same number."),
                    MAX_CONTEXTS,
                    "Shares of the contexts of the same numbers; only their ratio matters. One without has 1.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="attention",
                    tooltip="attention: every layer averages what the contexts give, by their shares; layer: at every "
                    "step, each layer is given one context, drawn by their shares; concatenate: contexts of one kind "
                    "side by side, as one with the tokens of all, without shares.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The mixture."),
                io.Conditioning.Output(
                    display_name="unconditional",
                    tooltip="The mixture of what guidance leads away from. Connect it to KSampler's negative.",
                ),
            ],
        )

    @classmethod
    def execute(cls, contexts, unconditionals, method, weights=None) -> io.NodeOutput:
        given = {name: contexts[name] for name in numbered("context", MAX_CONTEXTS) if contexts.get(name) is not None}
        if not given:
            raise ValueError("contexts: there is nothing to mix; connect at least one context.")
        if method not in METHODS:
            raise ValueError(f"method: there is no {method!r}; choose from {', '.join(METHODS)}.")
        if method == SIDE_BY_SIDE and any(weight is not None for weight in (weights or {}).values()):
            raise ValueError("weights: contexts side by side have no shares; set weight in CoDi Context (Image).")
        shares = weights_of(list(given), weights)
        parts = []
        for (name, conditioning), other in zip(given.items(), partners(list(given), "unconditional", unconditionals)):
            away = name.replace("context", "unconditional")
            if other is None:
                raise ValueError(f"{away}: there is none for {name}; connect the other output of the same node.")
            single(name, conditioning)
            parts.extend(to_contexts(name, conditioning, away, other).contexts)
        try:
            mixture = concatenate(parts) if method == SIDE_BY_SIDE else mix(list(zip(parts, shares)), method)
        except ValueError as error:
            raise ValueError(f"contexts: {error}") from error
        return io.NodeOutput(*conditionings(mixture))
