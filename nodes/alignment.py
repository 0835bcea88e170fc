"""Settings of the latent alignment between the streams of a joint run."""

from __future__ import annotations

from comfy_api.input import CurveInput
from comfy_api.latest import io

from ..codi_backend.checks.numbers import require_number
from .latents.empty import codi_config
from .runtime.alignment_options import KEY, with_settings
from .runtime.latent_packing import STREAMS
from .runtime.types import CATEGORY

MODES = ["paper", "released", "none"]
MAX_STRENGTH = 4.0
MAX_SCALE = 10.0


def mode_input() -> io.Combo.Input:
    return io.Combo.Input(
        "mode",
        options=MODES,
        default="paper",
        tooltip="paper: every stream attends to the others. released: every stream attends to itself, as in the "
        "published code. none: the streams share only the prompt.",
    )


def strength_input(tooltip: str) -> io.Float.Input:
    return io.Float.Input("strength", default=1.0, min=0.0, max=MAX_STRENGTH, step=0.05, tooltip=tooltip)


class CoDiAlignment(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiAlignment",
            display_name="CoDi Alignment",
            category=f"{CATEGORY}/sampling",
            description="Sets the latent alignment: how the streams of a joint run attend to each other.",
            search_aliases=["latent alignment", "coupling", "joint", "cross-modal", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="A CoDi model."),
                mode_input(),
                strength_input("Factor of the cross-attention between the streams; 1 is the value of the training."),
                io.Float.Input(
                    "alignment_scale",
                    default=0.0,
                    min=0.0,
                    max=MAX_SCALE,
                    step=0.1,
                    round=0.01,
                    optional=True,
                    tooltip="Modality guidance scale: guidance by the other streams, as a multiple of cfg, in the mode "
                    "paper. 0 is the model's own value, 1.8 for the built-in CoDi. Values other than 1 make sampling a "
                    "quarter slower.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model with this alignment.")],
        )

    @classmethod
    def execute(cls, model, mode, strength, alignment_scale=0.0) -> io.NodeOutput:
        codi_config(model)  # raises for another model
        return io.NodeOutput(with_settings(model, alignment=mode, strength=strength, alignment_scale=alignment_scale))


class CoDiAlignmentPair(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiAlignmentPair",
            display_name="CoDi Alignment (Pair)",
            category=f"{CATEGORY}/sampling",
            description="Sets how strongly one stream of a joint run attends to one other. Chain one node per pair; "
            "other pairs have the strength of CoDi Alignment.",
            search_aliases=["latent alignment", "cross-attention", "direction", "matrix", "coupling", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="A CoDi model."),
                io.Combo.Input(
                    "listener", options=list(STREAMS), default="image", tooltip="The target stream, which attends."
                ),
                io.Combo.Input(
                    "speaker",
                    options=list(STREAMS),
                    default="audio",
                    tooltip="The source stream, which the target stream attends to. The mode released uses only pairs "
                    "of a stream with itself.",
                ),
                strength_input(
                    "Factor of the cross-attention from the target to the source stream: 0 switches it off, 1 is the "
                    "value of the training."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model with this pair's strength.")],
        )

    @classmethod
    def execute(cls, model, listener, speaker, strength) -> io.NodeOutput:
        codi_config(model)
        pairs = model.model_options["transformer_options"].get(KEY, {}).get("pairs", {})
        return io.NodeOutput(with_settings(model, pairs=pairs | {(listener, speaker): strength}))


class CoDiAlignmentCurve(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiAlignmentCurve",
            display_name="CoDi Alignment (Curve)",
            category=f"{CATEGORY}/sampling",
            description="Changes the strength of the alignment in the course of sampling: every strength is multiplied "
            "by the value of this curve.",
            search_aliases=["latent alignment", "schedule", "strength over time", "coupling", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="A CoDi model."),
                io.Curve.Input(
                    "curve",
                    default=[(0.0, 1.0), (1.0, 1.0)],
                    socketless=False,
                    tooltip="Factor of all strengths. The left is the start of sampling, with the most noise. The "
                    "bottom is 0, the top is 1.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model with this curve.")],
        )

    @classmethod
    def execute(cls, model, curve) -> io.NodeOutput:
        codi_config(model)
        curve = CurveInput.from_raw(curve)
        for point in curve.points:
            for value in point:
                require_number(value, "curve", 0, 1)
        return io.NodeOutput(with_settings(model, curve=curve))
