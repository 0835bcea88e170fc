"""Prompts to CONDITIONING."""

from __future__ import annotations

from comfy_api.latest import io

from .types import CATEGORY, TextEncoderType


class CoDiPromptText(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiPromptText",
            display_name="CoDi Prompt (Text)",
            category=f"{CATEGORY}/prompts",
            description="Encodes a text prompt, and the empty prompt that goes to KSampler's negative with it.",
            search_aliases=["text encode", "clip text encode", "prompt", "conditioning", "codi"],
            inputs=[
                TextEncoderType.Input("text_encoder", tooltip="The prompt encoder from CoDi Load Model."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default="three red stars, slowly",
                    tooltip="What is to be seen and heard; leave it empty to generate without a prompt.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The prompt."),
                io.Conditioning.Output(
                    display_name="unconditional", tooltip="The empty prompt that guidance leads away from."
                ),
            ],
        )

    @classmethod
    def execute(cls, text_encoder, text) -> io.NodeOutput:
        if text_encoder is None:
            raise ValueError(
                "text_encoder: the loaded checkpoint has no text prompt encoder; load one that has (such as the mini)."
            )
        positive, unconditional = text_encoder.encode([text, ""]).split(1)
        return io.NodeOutput([[positive, {}]], [[unconditional, {}]])
