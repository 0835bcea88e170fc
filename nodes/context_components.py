"""The older Versatile Diffusion's disentanglement, on contexts of images."""

from __future__ import annotations

import math

import torch
from comfy_api.latest import io
from torch import Tensor

from ..codi_backend.versatile.editing import low_rank
from .context_tokens import FOR_TEXT, KEY, single
from .types import CATEGORY

LEVELS = {
    "all": 0,
    "all but the strongest": -1,
    "all but the 2 strongest": -2,
    "the 10 strongest": 1,
    "the 2 strongest": 2,
}


class CoDiContextComponents(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiContextComponents",
            display_name="CoDi Context Components",
            category=f"{CATEGORY}/contexts",
            description="Keeps some of the components that the tokens of an image are made of, as the older Versatile "
            "Diffusion did to edit images.",
            search_aliases=["disentanglement", "low rank", "style", "semantic", "svd", "versatile diffusion", "codi"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The context of one image, from CoDi Context (Image): either of its outputs.",
                ),
                io.Combo.Input(
                    "components",
                    options=list(LEVELS),
                    default="the 10 strongest",
                    tooltip="The strongest tell how the image looks, the others what it shows.",
                ),
                io.Boolean.Input(
                    "whole",
                    default=False,
                    tooltip="Keep the token that speaks for the whole image; it is never changed.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="What is left of the context.")],
        )

    @classmethod
    def execute(cls, conditioning, components, whole) -> io.NodeOutput:
        if components not in LEVELS:
            raise ValueError(f"components: there is no {components!r}; choose from {', '.join(LEVELS)}.")
        tokens, options = single("conditioning", conditioning)
        local = tokens.shape[1] - 1
        if options[KEY].contexts[0].kind != "image" or math.isqrt(local) ** 2 != local:
            raise ValueError(
                "conditioning: this is not the context of one image; connect CoDi Context (Image) as it is."
            )

        def left(tokens: Tensor) -> Tensor:
            kept = low_rank(tokens[:, 1:], LEVELS[components])
            return torch.cat([tokens[:, :1], kept], 1) if whole else kept

        if FOR_TEXT in options:
            options = options | {FOR_TEXT: left(options[FOR_TEXT])}
        return io.NodeOutput([[left(tokens), options]])
