"""Encoders of texts and images as contexts of all tokens, for Versatile Diffusion."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from ...codi_backend.checks.numbers import MAX_SCALE, require_number
from ...codi_backend.conditioning.context import Context
from ...codi_backend.conditioning.encode import UNCONDITIONAL
from ..clip_vision.focus import focus_input
from ..runtime.context_tokens import conditionings
from ..runtime.hints import show_hints
from ..runtime.media_inputs import image_pixels, mask_values
from ..runtime.required_inputs import require_choice, require_prompt_encoders
from ..runtime.types import CATEGORY, PromptEncodersType

AUTO = "auto"


def _schema(kind: str, description: str, aliases: list[str], content: list[io.Input], empty: str, **more) -> io.Schema:
    return io.Schema(
        node_id=f"CoDiContext{kind}",
        display_name=f"CoDi Context ({kind})",
        category=f"{CATEGORY}/contexts",
        description=description,
        search_aliases=[*aliases, "versatile diffusion", "prompt", "conditioning", "codi"],
        inputs=[
            PromptEncodersType.Input(
                "prompt_encoders", tooltip="The prompt encoders of a Versatile Diffusion, from CoDi Load Model."
            ),
            *content,
        ],
        outputs=[
            io.Conditioning.Output(display_name="positive", tooltip="The context, with all its tokens."),
            io.Conditioning.Output(
                display_name="unconditional",
                tooltip=f"The unconditional context ({empty}). Connect it to KSampler's negative.",
            ),
        ],
        **more,
    )


def _outputs(context: Context) -> io.NodeOutput:
    # The whole batch shares one unconditional context.
    other = context.unconditional_for_text
    once = {"unconditional": context.unconditional[:1], "unconditional_for_text": None if other is None else other[:1]}
    return io.NodeOutput(*conditionings(dataclasses.replace(context, **once)))


class CoDiContextText(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Text",
            "Encodes texts as contexts for Versatile Diffusion.",
            ["text encode", "clip text encode", "text variation"],
            [
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default="three red stars",
                    tooltip="A description of the result; a list of texts becomes a batch.",
                )
            ],
            "the empty text",
            is_input_list=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, prompt_encoders: list, text: list[str]) -> io.NodeOutput:
        encoders = require_prompt_encoders(prompt_encoders[0])
        output = _outputs(encoders.text_context(text))
        show_hints(cls, encoders.text_hints(text))
        return output


class CoDiContextImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Image",
            "Encodes images as contexts for Versatile Diffusion.",
            ["image variation", "clip vision encode", "ip adapter", "mask", "focus", "style"],
            [
                io.Image.Input(
                    "image",
                    tooltip="Images of any size. The centre square is encoded; transparent pixels become white. A "
                    "batch gives one context for each image.",
                ),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Factor of the tokens. It sets the influence of the image among concatenated images.",
                ),
                focus_input(),
                io.Combo.Input(
                    "unconditional",
                    options=[AUTO, *UNCONDITIONAL],
                    default=AUTO,
                    tooltip="The unconditional context. zeros: zeros. black, grey: an image of that colour. auto: "
                    "zeros, but black for text streams, as in the original.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 for visible parts of the image, 0 for hidden ones. A mask of any size is stretched over "
                    "the image. One mask for all images, or one for each.",
                ),
            ],
            "as chosen",
        )

    @classmethod
    def execute(cls, prompt_encoders, image, weight, focus, unconditional, mask=None) -> io.NodeOutput:
        encoders, pixels = require_prompt_encoders(prompt_encoders), image_pixels(image, "image")
        require_choice(unconditional, "unconditional", (AUTO, *UNCONDITIONAL))
        if mask is not None:
            mask = mask_values(mask, "mask")[:, None]
            if len(mask) not in (1, len(pixels)):
                raise ValueError(
                    f"mask: {len(mask)} masks do not go with {len(pixels)} images; connect one, or one for each image."
                )
        weight = require_number(weight, "weight", -MAX_SCALE, MAX_SCALE)
        focus = require_number(focus, "focus", 0, 1)
        unconditional = None if unconditional == AUTO else unconditional
        try:
            context = encoders.image_context(pixels, mask, weight, focus, unconditional)
        except ValueError as error:
            if focus == 0.5:
                raise
            raise ValueError(f"focus: {error}") from error
        return _outputs(context)
