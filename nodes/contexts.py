"""Texts and images to contexts of all tokens, for Versatile Diffusion, as CONDITIONING."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from ..codi_backend.checks import MAX_SCALE, require_number
from ..codi_backend.context_encoding import UNCONDITIONAL
from ..codi_backend.contexts import Context
from .context_tokens import conditionings
from .hints import show_hints
from .managed_prompts import PromptEncoders
from .media_inputs import image_pixels, mask_values
from .types import CATEGORY, PromptEncodersType

AUTO = "auto"


def _schema(
    kind: str, description: str, aliases: list[str], content: list[io.Input], nothing: str, **more
) -> io.Schema:
    return io.Schema(
        node_id=f"CoDiContext{kind}",
        display_name=f"CoDi Context ({kind})",
        category=f"{CATEGORY}/contexts",
        description=description,
        search_aliases=[*aliases, "versatile diffusion", "prompt", "conditioning", "codi"],
        inputs=[
            PromptEncodersType.Input(
                "prompt_encoders", tooltip="The prompt encoders from CoDi Load Model, of a Versatile Diffusion."
            ),
            *content,
        ],
        outputs=[
            io.Conditioning.Output(display_name="positive", tooltip="The context: all tokens of it."),
            io.Conditioning.Output(
                display_name="unconditional",
                tooltip=f"What guidance leads away from: {nothing}. Connect it to KSampler's negative.",
            ),
        ],
        **more,
    )


def _encoders(prompt_encoders) -> PromptEncoders:
    if prompt_encoders is None:
        raise ValueError("prompt_encoders: nothing is connected; connect the prompt encoders of CoDi Load Model.")
    return prompt_encoders


def _outputs(context: Context) -> io.NodeOutput:
    # What guidance leads away from is the same for the whole batch.
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
                    tooltip="What is to be seen or said; a list of texts becomes a batch.",
                )
            ],
            "the empty text",
            is_input_list=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, prompt_encoders: list, text: list[str]) -> io.NodeOutput:
        encoders = _encoders(prompt_encoders[0])
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
                    tooltip="Of any size; the centre square is looked at, what is transparent is white. A batch gives "
                    "one context for each image.",
                ),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Factor of the tokens: how much the image counts beside others that it is put side by side "
                    "with.",
                ),
                io.Float.Input(
                    "focus",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0: what the image shows, less of its style; 0.5: all of it, unchanged; 1: little but "
                    "its style.",
                ),
                io.Combo.Input(
                    "unconditional",
                    options=[AUTO, *UNCONDITIONAL],
                    default=AUTO,
                    tooltip="What guidance leads away from. zeros: nothing at all; black, grey: what a picture of one "
                    "colour says; auto: zeros, but black where a text is generated, as in the original.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 where the image is to be seen, 0 where it is not. Of any size: it is stretched over the "
                    "image. One for all images, or one for each.",
                ),
            ],
            "as chosen",
        )

    @classmethod
    def execute(cls, prompt_encoders, image, weight, focus, unconditional, mask=None) -> io.NodeOutput:
        encoders, pixels = _encoders(prompt_encoders), image_pixels(image, "image")
        if unconditional not in (AUTO, *UNCONDITIONAL):
            raise ValueError(
                f"unconditional: there is no {unconditional!r}; choose from {', '.join((AUTO, *UNCONDITIONAL))}."
            )
        if mask is not None:
            mask = mask_values(mask, "mask")[:, None]
            if len(mask) not in (1, len(pixels)):
                raise ValueError(
                    f"mask: {len(mask)} masks do not go with {len(pixels)} images; connect one, or one for each image."
                )
        weight = require_number(weight, "weight", -MAX_SCALE, MAX_SCALE)
        focus = require_number(focus, "focus", 0, 1)
        nothing = None if unconditional == AUTO else unconditional
        try:
            context = encoders.image_context(pixels, mask, weight, focus, nothing)
        except ValueError as error:
            if focus == 0.5:
                raise
            raise ValueError(f"focus: {error}") from error
        return _outputs(context)
