"""Interpolation of prompts."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ...codi_backend.conditioning.prompt import Prompt, interpolate
from ..runtime.conditioning_inputs import one_prompt
from ..runtime.growing_inputs import connected, counted, divided, growing, growing_weights, weight_widget, weights_of
from ..runtime.required_inputs import require_choice
from ..runtime.types import CATEGORY

MAX_PROMPTS = 16
METHODS = {"linear": "linear", "spherical": "slerp"}


class CoDiInterpolatePrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiInterpolatePrompts",
            display_name="CoDi Interpolate Prompts",
            category=f"{CATEGORY}/prompts",
            description="Mixes any number of prompts into one. Several may be of the same modality.",
            search_aliases=["mix", "blend", "average", "combine", "conditioning average", "slerp", "weights", "codi"],
            inputs=[
                counted(
                    "prompts",
                    MAX_PROMPTS,
                    "The number of prompts. Each has a socket and a weight.",
                    io.Conditioning.Input("prompt", tooltip="A prompt to mix, from a CoDi Prompt node."),
                    weight_widget("prompt"),
                ),
                _method_input(),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The mixed prompt.")],
        )

    @classmethod
    def execute(cls, prompts, method) -> io.NodeOutput:
        return _mixture(*divided(prompts, "prompt", "weight"), method)


class CoDiInterpolate(io.ComfyNode):
    """Stays for saved graphs: its weights are sockets."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiInterpolate",
            display_name="CoDi Interpolate Prompts (sockets)",
            category=f"{CATEGORY}/prompts",
            description="Mixes prompts by weights from other nodes. In new graphs use CoDi Interpolate Prompts, which "
            "has the weights as widgets.",
            search_aliases=["conditioning average", "slerp", "codi"],
            is_deprecated=True,
            inputs=[
                growing(
                    "prompts",
                    io.Conditioning.Input("prompt", tooltip="A prompt to mix."),
                    MAX_PROMPTS,
                    "Prompts to mix, from CoDi Prompt nodes; a new socket appears when the last is connected.",
                    least=2,
                ),
                growing_weights("prompt", MAX_PROMPTS),
                _method_input(),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The mixed prompt.")],
        )

    @classmethod
    def execute(cls, prompts, method, weights=None) -> io.NodeOutput:
        return _mixture(prompts, weights, method)


def _method_input() -> io.Combo.Input:
    return io.Combo.Input(
        "method",
        options=list(METHODS),
        default="linear",
        tooltip="linear: the weighted mean, as in the paper. spherical: slerp, which preserves the norm of the "
        "prompts.",
    )


def _mixture(prompts, weights, method) -> io.NodeOutput:
    # Slerp of three or more prompts depends on their order.
    given = connected("prompts", "prompt", MAX_PROMPTS, prompts, "mix")
    require_choice(method, "method", METHODS)
    embeddings = {name: _embedding(name, conditioning) for name, conditioning in given.items()}
    check_alike(embeddings)
    shares = weights_of(list(given), weights)
    mixture = interpolate([(Prompt(e, e), share) for e, share in zip(embeddings.values(), shares)], METHODS[method])
    _, more = next(iter(given.values()))[0]
    return io.NodeOutput([[mixture.embedding, more.copy()]])


def _embedding(name: str, conditioning) -> Tensor:
    return one_prompt(conditioning, name, "connect them one by one to mix them")[0]


def check_alike(embeddings: dict[str, Tensor]) -> None:
    """`ValueError` about the input of a prompt that does not go with the first one, or about the batches."""
    (first, one), *others = embeddings.items()
    for name, other in others:
        if other.shape[1:] != one.shape[1:]:
            raise ValueError(
                f"{name}: a prompt of {_size(other)} cannot be mixed with {first} of {_size(one)}; "
                "encode all prompts with the encoders of one checkpoint."
            )
    batches = {name: len(embedding) for name, embedding in embeddings.items() if len(embedding) > 1}
    if len(set(batches.values())) > 1:
        found = ", ".join(f"{size} in {name}" for name, size in batches.items())
        raise ValueError(f"prompts: their batches differ ({found}); make them equal, or 1.")


def _size(embedding: Tensor) -> str:
    tokens, width = embedding.shape[1:]
    return f"width {width}" if tokens == 1 else f"{tokens} tokens of width {width}"
