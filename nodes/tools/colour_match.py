"""Colour matching of images."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...codi_backend.checks.numbers import require_number
from ...codi_backend.media.colour_match import match_colour
from ..runtime.media_inputs import image_channels
from ..runtime.required_inputs import require_choice
from ..runtime.types import CATEGORY

METHODS = {"simple": "mean_std", "histogram": "histogram"}


class CoDiColourMatch(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiColourMatch",
            display_name="CoDi Colour Match",
            category=f"{CATEGORY}/image",
            description="Matches the colours of images to a reference, such as those of a variation to its original.",
            search_aliases=[
                "color match",
                "color transfer",
                "colour adjustment",
                "histogram matching",
                "grade",
                "codi",
            ],
            inputs=[
                io.Image.Input("image", tooltip="Images to change."),
                io.Image.Input(
                    "reference",
                    tooltip="The source of the colours, of any size: one for all images, or one for each.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="simple",
                    tooltip="simple: matches mean and standard deviation of red, green and blue. histogram: matches "
                    "the whole distribution of each.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Strength of the change: 0 keeps the images, 1 matches them fully.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The matched images.")],
        )

    @classmethod
    def execute(cls, image, reference, method, strength) -> io.NodeOutput:
        channels = image_channels(image, "image")
        # An alpha channel keeps its values.
        images, references = (
            pixels[:, :3].expand(-1, 3, -1, -1) for pixels in (channels, image_channels(reference, "reference"))
        )
        strength = require_number(strength, "strength", 0, 1)
        require_choice(method, "method", METHODS)
        if len(references) not in (1, len(images)):
            raise ValueError(
                f"reference: {len(references)} references do not match {len(images)} images; "
                "connect one, or one for each."
            )
        matched = match_colour(images, references, METHODS[method], strength)
        return io.NodeOutput(torch.cat([matched, channels[:, 3:]], 1).movedim(1, -1))
