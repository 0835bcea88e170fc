"""The runs of an evaluation of Versatile Diffusion."""

from __future__ import annotations

from .contexts import ContradictingText, DualContext, EditedImage, ImageContext, TextContext
from .runs import Run

_BOTH = ("text", "image")
FOCUS = {level: f"focus_{level:g}" for level in (0.0, 0.25, 0.5, 0.75, 1.0)}
START_STRENGTHS = {strength: f"start_{strength:g}" for strength in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}
DUALS = {
    "dual_shape": DualContext("shape", 0.5),
    "dual_shape_focus": DualContext("shape", 1.0),
    "dual_colour": DualContext("colour", 0.5),
    "dual_colour_focus": DualContext("colour", 0.0),
}
RUNS = {
    run.name: run
    for run in (
        Run("flows_text", TextContext(), _BOTH),
        Run("flows_image", ImageContext(), _BOTH),
        Run("flows_text_held_out", TextContext(), _BOTH, split="held_out"),
        Run("flows_image_held_out", ImageContext(), _BOTH, split="held_out"),
        *(Run(name, context, ("image",)) for name, context in DUALS.items()),
        *(Run(name, ImageContext(level), ("image",)) for level, name in FOCUS.items()),
        *(Run(name, ContradictingText(), ("image",), start_strength=s) for s, name in START_STRENGTHS.items()),
        Run("edit", EditedImage(by_text=False), ("image",)),
        Run("edit_by_text", EditedImage(by_text=True), ("image",)),
    )
}
