"""The disentanglement of the older Versatile Diffusion, for contexts of images."""

from __future__ import annotations

import math

import torch
from comfy_api.latest import io
from torch import Tensor

from ...codi_backend.conditioning.editing import low_rank
from ..runtime.context_tokens import FOR_TEXT, KEY, single
from ..runtime.required_inputs import require_choice
from ..runtime.types import CATEGORY

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
            description="Keeps some principal components of the tokens of an image, as the older Versatile Diffusion "
            "did to edit images.",
            search_aliases=["disentanglement", "low rank", "style", "semantic", "svd", "versatile diffusion", "codi"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The context of one image: either output of CoDi Context (Image).",
                ),
                io.Combo.Input(
                    "components",
                    options=list(LEVELS),
                    default="the 10 strongest",
                    tooltip="The strongest components hold the style of the image, the others its content.",
                ),
                io.Boolean.Input(
                    "whole",
                    default=False,
                    tooltip="Keep the token of the whole image; its values never change.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The remaining context.")],
        )

    @classmethod
    def execute(cls, conditioning, components, whole) -> io.NodeOutput:
        require_choice(components, "components", LEVELS)
        tokens, options = single("conditioning", conditioning)
        local = tokens.shape[1] - 1
        if options[KEY].contexts[0].kind != "image" or math.isqrt(local) ** 2 != local:
            raise ValueError(
                "conditioning: this is not the context of one image; connect CoDi Context (Image) as it is."
            )

        def kept_part(tokens: Tensor) -> Tensor:
            kept = low_rank(tokens[:, 1:], LEVELS[components])
            return torch.cat([tokens[:, :1], kept], 1) if whole else kept

        if FOR_TEXT in options:
            options = options | {FOR_TEXT: kept_part(options[FOR_TEXT])}
        return io.NodeOutput([[kept_part(tokens), options]])
