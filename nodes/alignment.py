"""How the streams of a joint run listen to each other."""

from __future__ import annotations

from comfy_api.input import CurveInput
from comfy_api.latest import io

from ..codi_backend.checks import require_number
from .latents import codi_config
from .listening import KEY, with_settings
from .streams import STREAMS
from .types import CATEGORY

MODES = ["paper", "released", "none"]
MAX_STRENGTH = 4.0
MAX_SCALE = 10.0


def mode_input() -> io.Combo.Input:
    return io.Combo.Input(
        "mode",
        options=MODES,
        default="paper",
        tooltip="paper: every stream listens to the others. released: every stream listens to itself, as "
        "the published code does. none: the streams share the prompt and nothing else.",
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
            description="Sets how the streams of a joint run listen to each other while they are denoised.",
            search_aliases=["latent alignment", "coupling", "joint", "cross-modal", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="A CoDi model."),
                mode_input(),
                strength_input("How much of what a stream hears is added to it; 1 is how the model was trained."),
                io.Float.Input(
                    "alignment_scale",
                    default=0.0,
                    min=0.0,
                    max=MAX_SCALE,
                    step=0.1,
                    round=0.01,
                    optional=True,
                    tooltip="How far what a stream hears leads it, as a multiple of cfg, in the mode paper; 0 takes "
                    "the model's own, 1.8 for the built-in CoDi. Others than 1 make sampling a quarter slower.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model with this alignment.")],
        )

    @classmethod
    def execute(cls, model, mode, strength, alignment_scale=0.0) -> io.NodeOutput:
        codi_config(model)  # says so if it is another model
        return io.NodeOutput(with_settings(model, alignment=mode, strength=strength, alignment_scale=alignment_scale))


class CoDiAlignmentPair(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiAlignmentPair",
            display_name="CoDi Alignment (Pair)",
            category=f"{CATEGORY}/sampling",
            description="Sets how much one stream of a joint run listens to one other. Chain one node for each pair; "
            "pairs that no node names have the strength of CoDi Alignment.",
            search_aliases=["latent alignment", "who listens to whom", "direction", "matrix", "coupling", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="A CoDi model."),
                io.Combo.Input("listener", options=list(STREAMS), default="image", tooltip="The stream that listens."),
                io.Combo.Input(
                    "speaker",
                    options=list(STREAMS),
                    default="audio",
                    tooltip="The stream that it listens to. Itself counts in the mode released only.",
                ),
                strength_input("How much the listener hears of the speaker; 0: nothing, 1: as the model was trained."),
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
            description="Lets the strength of the alignment change in the course of sampling: "
            "every strength is multiplied by the height of this curve.",
            search_aliases=["latent alignment", "schedule", "strength over time", "coupling", "codi"],
            inputs=[
                io.Model.Input("model", tooltip="A CoDi model."),
                io.Curve.Input(
                    "curve",
                    default=[(0.0, 1.0), (1.0, 1.0)],
                    socketless=False,
                    tooltip="Left is the start of sampling, with the most noise, right its end; at the bottom streams "
                    "hear nothing, at the top all of the strength that is set.",
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
