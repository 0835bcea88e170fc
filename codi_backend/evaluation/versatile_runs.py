"""The runs of an evaluation of Versatile Diffusion."""

from __future__ import annotations

from .contexts import Contrary, Described, Dual, Edited, Pictured
from .runs import Run

_BOTH = ("text", "image")
FOCUS = {level: f"focus_{level:g}" for level in (0.0, 0.25, 0.5, 0.75, 1.0)}
FIDELITY = {share: f"start_{share:g}" for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}
DUALS = {
    "dual_shape": Dual("shape", 0.5),
    "dual_shape_focus": Dual("shape", 1.0),
    "dual_colour": Dual("colour", 0.5),
    "dual_colour_focus": Dual("colour", 0.0),
}
RUNS = {
    run.name: run
    for run in (
        Run("flows_text", Described(), _BOTH),
        Run("flows_image", Pictured(), _BOTH),
        Run("flows_text_held_out", Described(), _BOTH, split="held_out"),
        Run("flows_image_held_out", Pictured(), _BOTH, split="held_out"),
        *(Run(name, guide, ("image",)) for name, guide in DUALS.items()),
        *(Run(name, Pictured(level), ("image",)) for level, name in FOCUS.items()),
        *(Run(name, Contrary(), ("image",), fidelity=share) for share, name in FIDELITY.items()),
        Run("edit", Edited(by_text=False), ("image",)),
        Run("edit_by_text", Edited(by_text=True), ("image",)),
    )
}
