"""Mixing prompts."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..codi_backend.conditioning import Prompt, interpolate
from .types import CATEGORY

MAX_PROMPTS = 16
METHODS = {"linear": "linear", "spherical": "slerp"}


class CoDiInterpolate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiInterpolate",
            display_name="CoDi Interpolate Prompts",
            category=f"{CATEGORY}/prompts",
            description="Mixes any number of prompts of all kinds, several of one kind too, into one.",
            search_aliases=["mix", "blend", "average", "combine", "conditioning average", "slerp", "weights", "codi"],
            inputs=[
                io.Autogrow.Input(
                    "prompts",
                    template=io.Autogrow.TemplateNames(
                        io.Conditioning.Input("prompt", tooltip="A prompt to mix."), names=_names("prompt"), min=2
                    ),
                    tooltip="Prompts to mix, from CoDi Prompt nodes; a new socket appears when the last is connected.",
                ),
                io.Autogrow.Input(
                    "weights",
                    template=io.Autogrow.TemplateNames(
                        io.Float.Input("weight", tooltip="The share of the prompt of the same number."),
                        names=_names("weight"),
                        min=0,
                    ),
                    optional=True,
                    tooltip="Shares of the prompts of the same numbers; only their ratio matters. "
                    "A prompt without one has 1.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="linear",
                    tooltip="linear: the weighted mean, as in the paper; spherical: along the sphere, which keeps the "
                    "length of the prompts.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The mixture.")],
        )

    @classmethod
    def execute(cls, prompts, method, weights=None) -> io.NodeOutput:
        # In the order of their numbers, which decides what comes out on the sphere.
        given = {name: prompts[name] for name in _names("prompt") if prompts.get(name) is not None}
        if not given:
            raise ValueError("prompts: there is nothing to mix; connect at least one prompt.")
        if method not in METHODS:
            raise ValueError(f"method: there is no {method!r}; choose from {', '.join(METHODS)}.")
        embeddings = {name: _embedding(name, conditioning) for name, conditioning in given.items()}
        _check(embeddings)
        shares = _shares(list(given), weights or {})
        mixture = interpolate([(Prompt(e, e), share) for e, share in zip(embeddings.values(), shares)], METHODS[method])
        _, more = next(iter(given.values()))[0]
        return io.NodeOutput([[mixture.embedding, more.copy()]])


def _names(name: str) -> list[str]:
    return [f"{name}_{number}" for number in range(1, MAX_PROMPTS + 1)]


def _embedding(name: str, conditioning) -> Tensor:
    if len(conditioning) != 1:
        raise ValueError(
            f"{name}: this holds {len(conditioning)} prompts that apply side by side, of which no mixture can be made; "
            "connect them one by one."
        )
    return conditioning[0][0]


def _check(embeddings: dict[str, Tensor]) -> None:
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


def _shares(prompts: list[str], weights: dict[str, float | None]) -> list[float]:
    """The weight of each prompt, 1 where none is connected."""
    given = {name.replace("weight", "prompt"): weight for name, weight in weights.items() if weight is not None}
    if strange := sorted(given.keys() - set(prompts)):
        raise ValueError(f"weights: one is for {strange[0]}, which is not there; connect it, or disconnect its weight.")
    shares = [float(given.get(name, 1.0)) for name in prompts]
    if not all(0 <= share < float("inf") for share in shares):
        raise ValueError(f"weights: {', '.join(f'{s:g}' for s in shares)} cannot be used; a weight is 0 or more.")
    if sum(shares) == 0:
        raise ValueError("weights: all are 0, so that nothing is left; give at least one prompt a greater one.")
    return shares
