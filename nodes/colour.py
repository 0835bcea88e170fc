"""Pictures in the colours of another."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..codi_backend.checks import require_number
from ..codi_backend.versatile.colour import match_colour
from .media_inputs import image_channels
from .types import CATEGORY

METHODS = {"simple": "mean_std", "histogram": "histogram"}


class CoDiColourMatch(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiColourMatch",
            display_name="CoDi Colour Match",
            category=f"{CATEGORY}/image",
            description="Gives pictures the colours of a reference, such as a variation those of its original.",
            search_aliases=[
                "color match",
                "color transfer",
                "colour adjustment",
                "histogram matching",
                "grade",
                "codi",
            ],
            inputs=[
                io.Image.Input("image", tooltip="Pictures to change."),
                io.Image.Input(
                    "reference",
                    tooltip="The picture whose colours they get, of any size: one for all of them, or one for each.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="simple",
                    tooltip="simple: mean and spread of red, green and blue become the reference's; histogram: the "
                    "whole distribution of each.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the change is made: 0 keeps the pictures, 1 changes them fully.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The pictures in their new colours.")],
        )

    @classmethod
    def execute(cls, image, reference, method, strength) -> io.NodeOutput:
        channels = image_channels(image, "image")
        # Transparency, where there is any, is no colour.
        pictures, colours = (
            pixels[:, :3].expand(-1, 3, -1, -1) for pixels in (channels, image_channels(reference, "reference"))
        )
        strength = require_number(strength, "strength", 0, 1)
        if method not in METHODS:
            raise ValueError(f"method: there is no {method!r}; choose from {', '.join(METHODS)}.")
        if len(colours) not in (1, len(pictures)):
            raise ValueError(
                f"reference: {len(colours)} pictures do not go with {len(pictures)} to change; "
                "connect one, or one for each."
            )
        matched = match_colour(pictures, colours, METHODS[method], strength)
        return io.NodeOutput(torch.cat([matched, channels[:, 3:]], 1).movedim(1, -1))
