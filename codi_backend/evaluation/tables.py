"""The seven tables, from the records of the runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..data.captions import ATTRIBUTES
from .agreement import NAMES, Record, Records, adherence, coupling, synchrony, tells
from .figures import Figure, share
from .runs import ALL, INTERPOLATIONS

_NEAR = 0.10  # seconds

# What the small model is asked for, in shares.
_FROM_TEXT = {
    "text": {"all": 0.97},
    "image": {"colour": 0.98, "shape": 0.95, "count": 0.93},
    "video": {"colour": 0.98, "shape": 0.95, "count": 0.93, "tempo": 0.93},
    "audio": {"colour": 0.98, "shape": 0.90, "count": 0.93},
}
_FROM_OTHERS = {"colour": 0.90, "shape": 0.85, "count": 0.80}
_HELD_OUT_LOSS = 0.05
_INTERPOLATION = {"both": 0.85}
_HELD = {"count": 0.90, "onsets": 0.85}


@dataclass(frozen=True)
class Table:
    """One table: `key` names its files, `note` says how it was measured, `columns` in which order they stand.

    With an `axis`, its rows are numbers on it and its figures are drawn as curves.
    """

    key: str
    title: str
    note: str
    columns: tuple[str, ...]
    figures: tuple[Figure, ...]
    axis: str | None = None


def make_tables(records: Records) -> list[Table]:
    """All seven tables from the records of each run by name; what was not run has no figures."""
    return [
        Table(
            "fidelity",
            "Fidelity",
            "One prompt, one output: are the attributes the prompt's? (The model may be one that makes videos in the "
            "company of a sound, which is dropped.) Training never drew the scenes; their (colour, shape, count) "
            "triples were, except in the rows that say held out. Tempo: where there are two objects or more. All: "
            "every attribute that prompt and output both have.",
            (*ATTRIBUTES, "all"),
            tuple(_fidelity(records)),
        ),
        Table(
            "bridging",
            "Bridging",
            "The same for image and sound, which no stage of training has seen as a pair.",
            (*ATTRIBUTES, "all"),
            tuple(f for f in _fidelity(records) if f.row in ("image → sound", "sound → image")),
        ),
        Table(
            "interpolation",
            "Interpolation",
            "Half of the prompt gives the colour, the other half the shape (and the count). A text names one of them "
            "only. A picture or a sound always has both: what it shall leave open is given as a set of six that differ "
            "in it, with equal weights; grey: as one picture drawn in grey. All are mixed along the sphere (slerp).",
            ("both", "colour", "shape"),
            tuple(_interpolation(records)),
        ),
        Table(
            "coupling",
            "Coupling",
            "Texts that leave out each attribute with probability 1/2: how often do all streams agree on an attribute "
            "that was left out? Jointly: alignment paper, the best of as many candidates as the settings say. "
            "Independent: alignment none, the same prompts and seeds and more of them, one candidate; its target is "
            "chance, as it is for streams that draw from the scenes of training which the prompt allows. Own "
            "frequencies: what independent streams would reach that prefer the values that these do. Tempo: unless a "
            "stream has a single object. A stream in which the judge cannot tell does not agree.",
            ATTRIBUTES,
            tuple(coupling(records)),
        ),
        Table(
            "adherence",
            "What the prompt says, in company",
            "The same runs: how often does each stream have an attribute that the prompt names? What other streams say "
            "adds to the prompt and must not drown it.",
            ATTRIBUTES,
            tuple(adherence(records)),
        ),
        Table(
            "synchrony",
            "Synchrony of video and sound",
            "No prompt says when the first object appears. Error: mean absolute difference between the first onsets of "
            "video and sound; a clip's frames are 0.16 s apart, so that the judge itself errs by 0.04 s on average. "
            "Strangers: the same between videos and sounds of different results, which is chance. Both begin: results "
            "in which both have an onset, on which the error is measured.",
            ("error", "strangers", "both begin"),
            tuple(synchrony(records)),
        ),
        Table(
            "held",
            "Held streams",
            "A ground-truth stream is held, the prompt is empty. Onsets: the right number, each within 0.10 s.",
            ("count", "onsets", "colour", "shape", "tempo", "all"),
            tuple(_held(records)),
        ),
    ]


def _fidelity(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for prompt, output in itertools.product(ALL, ALL):
        row = f"{NAMES[prompt]} → {NAMES[output]}"
        targets = _FROM_TEXT[output] if prompt == "text" else _FROM_OTHERS
        run = f"video_from_{prompt}" if output == "video" else f"fidelity_{prompt}"
        seen = against_scene(row, records.get(run, ()), prompt, output, targets)
        figures += seen
        if prompt == "text":
            held_out = records.get(f"{run}_held_out", ())
            targets = {f.column: f.value - _HELD_OUT_LOSS for f in seen if f.target is not None}
            figures += against_scene(f"{row}, held out", held_out, prompt, output, targets)
    return figures


def against_scene(
    row: str,
    records: Sequence[Record],
    prompt: str,
    output: str,
    targets: Mapping[str, float],
    attributes: Sequence[str] = ATTRIBUTES,
) -> list[Figure]:
    """Which of the attributes of the scene that the prompt tells of are in the output."""
    right: dict[str, list[bool]] = {column: [] for column in (*attributes, "all")}
    for record in records:
        if output not in record:
            continue
        scene, judged = record["scene"], record[output]
        told = [a for a in attributes if tells(prompt, a, scene["count"]) and tells(output, a, scene["count"])]
        for attribute in told:
            right[attribute].append(judged[attribute] == scene[attribute])
        right["all"].append(all(judged[a] == scene[a] for a in told))
    return [f for column, values in right.items() for f in share(row, column, values, target=targets.get(column))]


def _interpolation(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for run, mixed in INTERPOLATIONS.items():
        shape = f"{NAMES[mixed.shape]}{', grey' if mixed.grey else ''}"
        for output in ALL:
            made = [(r[output], r["scene"]) for r in records.get(run, ()) if output in r]
            row = f"colour: {NAMES[mixed.colour]}, shape: {shape} → {NAMES[output]}"
            for column, names in (("both", ("colour", "shape")), ("colour", ("colour",)), ("shape", ("shape",))):
                right = [all(judged[a] == scene[a] for a in names) for judged, scene in made]
                figures += share(row, column, right, target=_INTERPOLATION.get(column))
    return figures


def _held(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for held, output in (("video", "audio"), ("audio", "video")):
        row = f"{NAMES[held]} held → {NAMES[output]}"
        made = records.get(f"held_{held}", ())
        onsets = [_same_onsets(r[output]["onsets"], r["scene"]["onsets"]) for r in made]
        figures += share(row, "onsets", onsets, target=_HELD["onsets"])
        figures += against_scene(row, made, held, output, _HELD)
    return figures


def _same_onsets(judged: Sequence[float], true: Sequence[float]) -> bool:
    return len(judged) == len(true) and all(abs(a - b) <= _NEAR for a, b in zip(judged, true))
