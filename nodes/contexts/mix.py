"""Mixtures of contexts."""

from __future__ import annotations

from comfy_api.latest import io

from ...codi_backend.conditioning.context import MIXINGS, concatenate, mix
from ..runtime.context_tokens import conditionings, single, to_contexts
from ..runtime.growing_inputs import (
    connected,
    counted,
    divided,
    growing,
    growing_weights,
    partners,
    weight_widget,
    weights_of,
)
from ..runtime.required_inputs import require_choice
from ..runtime.types import CATEGORY

MAX_CONTEXTS = 16
CONCATENATE = "concatenate"
METHODS = (*MIXINGS, CONCATENATE)
NO_WEIGHTS = "the method concatenate has no weights"


class CoDiMixContextsByWeight(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiMixContextsByWeight",
            display_name="CoDi Mix Contexts",
            category=f"{CATEGORY}/contexts",
            description="Mixes several contexts for one run: texts and images by weight, or concatenated images.",
            search_aliases=["dual guidance", "multi context", "blend", "combine", "versatile diffusion", "codi"],
            inputs=[
                counted(
                    "contexts",
                    MAX_CONTEXTS,
                    "The number of contexts. Each has two sockets and a weight.",
                    io.Conditioning.Input("context", tooltip="A context to mix, from a CoDi Context node."),
                    _unconditional_input(),
                    weight_widget("context"),
                ),
                _method_input(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(cls, contexts, method) -> io.NodeOutput:
        given, unconditionals, weights = divided(contexts, "context", "unconditional", "weight")
        if method == CONCATENATE and any(weight != 1 for weight in weights.values()):
            raise ValueError(f"weights: {NO_WEIGHTS}; set them to 1 here, and weight in CoDi Context (Image).")
        return _mixture(given, unconditionals, weights, method)


class CoDiMixContexts(io.ComfyNode):
    """Stays for saved graphs: its weights are sockets."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiMixContexts",
            display_name="CoDi Mix Contexts (sockets)",
            category=f"{CATEGORY}/contexts",
            description="Mixes contexts by weights from other nodes. In new graphs use CoDi Mix Contexts, which has "
            "the weights as widgets.",
            search_aliases=["dual guidance", "versatile diffusion", "codi"],
            is_deprecated=True,
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
                    _unconditional_input(),
                    MAX_CONTEXTS,
                    "The unconditional outputs of the nodes that made the contexts with the same numbers.",
                    least=2,
                ),
                growing_weights("context", MAX_CONTEXTS),
                _method_input(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(cls, contexts, unconditionals, method, weights=None) -> io.NodeOutput:
        if method == CONCATENATE and any(weight is not None for weight in (weights or {}).values()):
            raise ValueError(f"weights: {NO_WEIGHTS}; set weight in CoDi Context (Image).")
        return _mixture(contexts, unconditionals, weights, method)


def _unconditional_input() -> io.Conditioning.Input:
    return io.Conditioning.Input(
        "unconditional", tooltip="The unconditional context of the context with the same number."
    )


def _method_input() -> io.Combo.Input:
    return io.Combo.Input(
        "method",
        options=list(METHODS),
        default="attention",
        tooltip="attention: every layer averages the outputs for the contexts, by weight. layer: at every step, each "
        "layer uses one context, drawn by weight. concatenate: joins the tokens of contexts of one kind, without "
        "weights.",
    )


def _outputs() -> list[io.Output]:
    return [
        io.Conditioning.Output(display_name="positive", tooltip="The mixture."),
        io.Conditioning.Output(
            display_name="unconditional",
            tooltip="The mixture of the unconditional contexts. Connect it to KSampler's negative.",
        ),
    ]


def _mixture(contexts, unconditionals, weights, method) -> io.NodeOutput:
    given = connected("contexts", "context", MAX_CONTEXTS, contexts, "mix")
    require_choice(method, "method", METHODS)
    shares = weights_of(list(given), weights)
    parts = []
    for (name, conditioning), other in zip(given.items(), partners(list(given), "unconditional", unconditionals)):
        other_name = name.replace("context", "unconditional")
        if other is None:
            raise ValueError(f"{other_name}: there is none for {name}; connect the other output of its node.")
        single(name, conditioning)
        parts.extend(to_contexts(name, conditioning, other_name, other).contexts)
    try:
        mixture = concatenate(parts) if method == CONCATENATE else mix(list(zip(parts, shares)), method)
    except ValueError as error:
        raise ValueError(f"contexts: {error}") from error
    return io.NodeOutput(*conditionings(mixture))
