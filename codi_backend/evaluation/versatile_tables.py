"""The five tables of Versatile Diffusion, made from the records of the runs."""

from __future__ import annotations

import itertools

from .agreement import Records
from .contexts import VISIBLE
from .figures import Figure, mean, share
from .tables import Table, against_scene, colour_and_shape
from .versatile_runs import DUALS, FOCUS, START_STRENGTHS

# Targets for the small model, in shares.
_FLOWS = {"image": {"colour": 0.95, "shape": 0.90}, "text": {"all": 0.90}}
_DUAL = 0.90
# The attributes that focus 0 (semantic) and focus 1 (style) keep.
_FOCUS = {0.0: ("shape", "count"), 1.0: ("colour",)}
_KEPT = 0.90


def make_tables(records: Records) -> list[Table]:
    """All five tables from the records by run; a run without records has no figures."""
    return [
        Table(
            "flows",
            "The four flows",
            "One text or image, default settings: the share of outputs with its colour, shape and count. The scenes "
            "are not in the training set; their (colour, shape, count) triples are, except in the rows that are marked "
            "held out. All: all three, which for a text is an exact caption. An image from an image has its "
            "attributes, not its positions.",
            (*VISIBLE, "all"),
            tuple(_flows(records)),
        ),
        Table(
            "dual",
            "Dual guidance",
            "A text names one attribute only, and an image has another value of it; ratios 1/2 and 1/2. The output "
            "should have this attribute from the text and the other from the image. With focus, the image's tokens are "
            "moved towards the attribute that they provide: 1, style, for the colour; 0, semantic, for the shape.",
            ("both", "colour", "shape"),
            tuple(_dual(records)),
        ),
        Table(
            "focus",
            "Focus",
            "One image is the context. Its local tokens are edited from semantic (0) over unchanged (0.5) to style "
            "(1). The share of outputs with each of its attributes.",
            VISIBLE,
            tuple(_focus(records)),
            axis="focus",
        ),
        Table(
            "start",
            "Strength of the start image",
            "A run starts from an image, and the text names another colour and another shape. Overlap: intersection "
            "over union of the pixels that objects cover in both images. Then the share of outputs with the colour and "
            "shape of the start, and with those of the text.",
            ("overlap", "start's colour", "start's shape", "text's colour", "text's shape"),
            tuple(_start(records)),
            axis="fidelity",
        ),
        Table(
            "edit",
            "Editing",
            "An image, a negative text that names one of its attributes, and a positive text that names another value. "
            "Success: the output has the value of the positive text and the other two attributes of the image. By the "
            "mixture: positive text and image are mixed, ratios 1/2 and 1/2; the negative text is the unconditional "
            "context. By the description: the original's withdrawn tool, which edits the latent of the image's caption "
            "and generates from the edited caption and ten components of the image's local tokens (0.67 and 0.33).",
            ("success", "changed", "others kept"),
            tuple(_edit(records)),
        ),
    ]


def _flows(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for prompt, output, held_out in itertools.product(("text", "image"), ("image", "text"), (False, True)):
        row = f"{prompt} → {output}{', held out' if held_out else ''}"
        made = records.get(f"flows_{prompt}{'_held_out' if held_out else ''}", ())
        figures += against_scene(row, made, prompt, output, {} if held_out else _FLOWS[output], VISIBLE)
    return figures


def _dual(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for run, dual in DUALS.items():
        other = "colour" if dual.stated == "shape" else "shape"
        row = f"{dual.stated}: text, {other}: image{'' if dual.focus == 0.5 else f', focus {dual.focus:g}'}"
        figures += colour_and_shape(row, records.get(run, ()), "image", _DUAL)
    return figures


def _focus(records: Records) -> list[Figure]:
    return [
        figure
        for level, run in FOCUS.items()
        for figure in against_scene(
            f"{level:g}", records.get(run, ()), "image", "image", dict.fromkeys(_FOCUS.get(level, ()), _KEPT), VISIBLE
        )
        if figure.column in VISIBLE
    ]


def _start(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for strength, run in START_STRENGTHS.items():
        made = records.get(run, ())
        figures += mean(f"{strength:g}", "overlap", [r["image"]["overlap"] for r in made], unit="share")
        for whose, key in (("start", "scene"), ("text", "told")):
            for attribute in ("colour", "shape"):
                right = [r["image"][attribute] == r[key][attribute] for r in made]
                figures += share(f"{strength:g}", f"{whose}'s {attribute}", right)
    return figures


def _edit(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for run, how in (("edit", "by the mixture"), ("edit_by_text", "by the description")):
        made = records.get(run, ())
        for name in (*VISIBLE, "any"):
            edited = [r for r in made if name in ("any", r["changed"])]
            right = [{a: r["image"][a] == r["scene"][a] for a in VISIBLE} for r in edited]
            changed = [one[r["changed"]] for one, r in zip(right, edited)]
            kept = [all(one[a] for a in VISIBLE if a != r["changed"]) for one, r in zip(right, edited)]
            row = f"{how}, {name}"
            figures += share(row, "success", [a and b for a, b in zip(changed, kept)])
            figures += share(row, "changed", changed) + share(row, "others kept", kept)
    return figures
