"""Versatile Diffusion's focus for CLIP vision outputs."""

from __future__ import annotations

import copy

from comfy_api.latest import io

from ...codi_backend.checks.numbers import require_number
from ...codi_backend.conditioning.focus import focus_local
from ..runtime.types import CATEGORY
from .outputs import layout, token_fields


def focus_input() -> io.Input:
    return io.Float.Input(
        "focus",
        default=0.5,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="0 keeps the content of the image and reduces its style, 0.5 keeps both, 1 keeps mostly the style.",
    )


class CoDiFocus(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiFocus",
            display_name="CoDi Focus",
            category=f"{CATEGORY}/conditioning",
            description="Shifts the encoding of an image towards its content or towards its style.",
            search_aliases=["style", "semantic", "disentanglement", "clip vision", "redux", "svd", "codi"],
            inputs=[
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    tooltip="From CLIP Vision Encode, for nodes that use tokens, such as Apply Style Model.",
                ),
                focus_input(),
            ],
            outputs=[
                io.ClipVisionOutput.Output(
                    display_name="clip_vision_output",
                    tooltip="The output with changed local tokens. Tokens and embeddings of the whole image stay.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip_vision_output, focus) -> io.NodeOutput:
        name = "clip_vision_output"
        fields = token_fields(clip_vision_output, name)
        focus = require_number(focus, "focus", 0, 1)
        if focus == 0.5:
            return io.NodeOutput(clip_vision_output)
        local = layout(clip_vision_output, fields, name).local
        changed = copy.copy(clip_vision_output)
        for field, tokens in fields.items():
            flat = tokens.flatten(0, -3)
            try:
                focused = focus_local(flat, focus, whole=flat.shape[1] - local)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            setattr(changed, field, focused.view_as(tokens))
        return io.NodeOutput(changed)
