"""The tables of Versatile Diffusion, from the records of the runs."""

from __future__ import annotations

import itertools

from .agreement import NAMES, Records
from .contexts import SEEN
from .figures import Figure, mean, share
from .tables import Table, against_scene
from .versatile_runs import DUALS, FIDELITY, FOCUS

# What the small model is asked for, in shares.
_FLOWS = {"image": {"colour": 0.95, "shape": 0.90}, "text": {"all": 0.90}}
_DUAL = 0.90
# Towards 0 focus keeps the one, towards 1 the other.
_FOCUS = {0.0: ("shape", "count"), 1.0: ("colour",)}
_KEPT = 0.90


def make_tables(records: Records) -> list[Table]:
    """All five tables from the records of each run by name; what was not run has no figures."""
    return [
        Table(
            "flows",
            "The four flows",
            "One text or picture, default settings: has the output its colour, shape and count? Training never drew "
            "the scenes; their (colour, shape, count) triples were, except in the rows that say held out. All: all "
            "three, which for a text is an exact caption. A picture from a picture has its attributes, not its places.",
            (*SEEN, "all"),
            tuple(_flows(records)),
        ),
        Table(
            "dual",
            "Dual guidance",
            "A text names one attribute and nothing else, a picture has another value of it; ratios 1/2 and 1/2. The "
            "text's attribute must be the text's, the other the picture's. With focus, the picture's tokens are moved "
            "to what is asked of it: 1, style, for its colour; 0, semantic, for its shape.",
            ("both", "colour", "shape"),
            tuple(_dual(records)),
        ),
        Table(
            "focus",
            "Focus",
            "A picture guides alone, its local tokens edited from semantic (0) over unchanged (0.5) to style (1): "
            "which of its attributes has the result?",
            SEEN,
            tuple(_focus(records)),
            axis="focus",
        ),
        Table(
            "start",
            "Fidelity to a start",
            "A run begins with a picture and is guided by a text that names another colour and another shape. Overlap: "
            "of what either picture covers, the share that both do. Then how often the result has the start's colour "
            "and shape, and how often the text's.",
            ("overlap", "start's colour", "start's shape", "text's colour", "text's shape"),
            tuple(_start(records)),
            axis="fidelity",
        ),
        Table(
            "edit",
            "Editing",
            "A picture, a negative text that names one of its attributes, a positive one that names another value. "
            "Success: the named attribute is the positive text's and the other two are as they were. By the mixture: "
            "positive text and picture guide together, ratios 1/2 and 1/2, away from the negative text. By the "
            "description: the original's withdrawn tool, which edits the latent of a description of the picture, draws "
            "what it then says, and takes of the picture ten components of its local tokens (0.67 and 0.33).",
            ("success", "changed", "others kept"),
            tuple(_edit(records)),
        ),
    ]


def _flows(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for prompt, output, held_out in itertools.product(("text", "image"), ("image", "text"), (False, True)):
        row = f"{NAMES[prompt]} → {NAMES[output]}{', held out' if held_out else ''}"
        made = records.get(f"flows_{prompt}{'_held_out' if held_out else ''}", ())
        figures += against_scene(row, made, prompt, output, {} if held_out else _FLOWS[output], SEEN)
    return figures


def _dual(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for run, dual in DUALS.items():
        other = "colour" if dual.said == "shape" else "shape"
        row = f"{dual.said}: text, {other}: picture{'' if dual.focus == 0.5 else f', focus {dual.focus:g}'}"
        made = [(r["image"], r["scene"]) for r in records.get(run, ())]
        for column, names in (("both", ("colour", "shape")), ("colour", ("colour",)), ("shape", ("shape",))):
            right = [all(judged[a] == scene[a] for a in names) for judged, scene in made]
            figures += share(row, column, right, target=_DUAL if column == "both" else None)
    return figures


def _focus(records: Records) -> list[Figure]:
    return [
        figure
        for level, run in FOCUS.items()
        for figure in against_scene(
            f"{level:g}", records.get(run, ()), "image", "image", dict.fromkeys(_FOCUS.get(level, ()), _KEPT), SEEN
        )
        if figure.column in SEEN
    ]


def _start(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for fidelity, run in FIDELITY.items():
        made = records.get(run, ())
        figures += mean(f"{fidelity:g}", "overlap", [r["image"]["overlap"] for r in made], unit="share")
        for whose, key in (("start", "scene"), ("text", "told")):
            for attribute in ("colour", "shape"):
                right = [r["image"][attribute] == r[key][attribute] for r in made]
                figures += share(f"{fidelity:g}", f"{whose}'s {attribute}", right)
    return figures


def _edit(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for run, how in (("edit", "by the mixture"), ("edit_by_text", "by the description")):
        made = records.get(run, ())
        for name in (*SEEN, "any"):
            edited = [r for r in made if name in ("any", r["changed"])]
            right = [{a: r["image"][a] == r["scene"][a] for a in SEEN} for r in edited]
            changed = [told[r["changed"]] for told, r in zip(right, edited)]
            kept = [all(told[a] for a in SEEN if a != r["changed"]) for told, r in zip(right, edited)]
            row = f"{how}, {name}"
            figures += share(row, "success", [a and b for a, b in zip(changed, kept)])
            figures += share(row, "changed", changed) + share(row, "others kept", kept)
    return figures
