"""The seven tables of a CoDi model, made from the records of the runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..data.captions import ATTRIBUTES
from .agreement import Record, Records, adherence, coupling, has_attribute, synchrony
from .figures import Figure, share
from .runs import ALL, INTERPOLATIONS

_NEAR = 0.10  # seconds

# Targets for the small model, in shares.
_FROM_TEXT = {
    "text": {"all": 0.97},
    "image": {"colour": 0.98, "shape": 0.95, "count": 0.93},
    "video": {"colour": 0.98, "shape": 0.95, "count": 0.93, "tempo": 0.93},
    "audio": {"colour": 0.98, "shape": 0.90, "count": 0.93},
}
_FROM_OTHERS = {"colour": 0.90, "shape": 0.85, "count": 0.80}
_HELD_OUT_LOSS = 0.05
_INTERPOLATION = 0.85
_HELD = {"count": 0.90, "onsets": 0.85}


@dataclass(frozen=True)
class Table:
    """One table: `key` names its files, `note` describes the measurement, `columns` are in their order.

    With an `axis`, the rows are numbers on that axis and the figures are plotted as curves.
    """

    key: str
    title: str
    note: str
    columns: tuple[str, ...]
    figures: tuple[Figure, ...]
    axis: str | None = None


def make_tables(records: Records) -> list[Table]:
    """All seven tables from the records by run; a run without records has no figures."""
    return [
        Table(
            "fidelity",
            "Fidelity",
            "One prompt, one output: the share of outputs with the attributes of the prompt. Videos are generated with "
            "the model's auxiliary streams. The scenes are not in the training set; their (colour, shape, count) "
            "triples are, except in the rows that are marked held out. Tempo: for two objects or more. All: every "
            "attribute that prompt and output both have.",
            (*ATTRIBUTES, "all"),
            tuple(_fidelity(records)),
        ),
        Table(
            "bridging",
            "Bridging",
            "The same for image and audio, which are a pair in no stage of training.",
            (*ATTRIBUTES, "all"),
            tuple(f for f in _fidelity(records) if f.row in ("image → audio", "audio → image")),
        ),
        Table(
            "interpolation",
            "Interpolation",
            "Half of the prompt states the colour, the other half the shape (and the count). A text names one of them "
            "only. An image or audio always has both, so it is given as six variants that differ in the attribute to "
            "leave out, with equal weights (grey: as one grey image). All are interpolated by slerp.",
            ("both", "colour", "shape"),
            tuple(_interpolation(records)),
        ),
        Table(
            "coupling",
            "Coupling",
            "Texts that leave out each attribute with probability 1/2: the share of results in which all streams agree "
            "on an attribute that is left out. Jointly: alignment paper, best-of-N with the number of candidates in "
            "the settings. Independent: alignment none, the same prompts and seeds and more of them, one candidate; "
            "the target is chance, for streams that draw from the training scenes which the prompt allows. Own "
            "frequencies: the expectation for independent streams with the value frequencies of these. Tempo: unless "
            "a stream has a single object. A stream whose attribute the judge cannot measure does not agree.",
            ATTRIBUTES,
            tuple(coupling(records)),
        ),
        Table(
            "adherence",
            "Adherence to the prompt in joint runs",
            "The same runs: the share of streams with an attribute that the prompt names. Cross-attention to other "
            "streams must not outweigh the prompt.",
            ATTRIBUTES,
            tuple(adherence(records)),
        ),
        Table(
            "synchrony",
            "Synchrony of video and audio",
            "No prompt states when the first object appears. Error: mean absolute difference between the first onsets "
            "of video and audio. Video frames are 0.16 s apart, so the judge's own error is 0.04 s on average. "
            "Shuffled: the same between videos and audio of different results (shuffled baseline), which is chance. "
            "Both begin: the share of results in which both have an onset; the error is measured on these.",
            ("error", "shuffled", "both begin"),
            tuple(synchrony(records)),
        ),
        Table(
            "held",
            "Held streams",
            "A ground-truth stream is held and the prompt is empty. Onsets: the right number, each within 0.10 s.",
            ("count", "onsets", "colour", "shape", "tempo", "all"),
            tuple(_held(records)),
        ),
    ]


def _fidelity(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for prompt, output in itertools.product(ALL, ALL):
        row = f"{prompt} → {output}"
        targets = _FROM_TEXT[output] if prompt == "text" else _FROM_OTHERS
        run = f"video_from_{prompt}" if output == "video" else f"fidelity_{prompt}"
        seen_triples = against_scene(row, records.get(run, ()), prompt, output, targets)
        figures += seen_triples
        if prompt == "text":
            held_out = records.get(f"{run}_held_out", ())
            targets = {f.column: f.value - _HELD_OUT_LOSS for f in seen_triples if f.target is not None}
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
    """The shares of outputs with the attributes of the scene, for attributes that prompt and output both have."""
    right: dict[str, list[bool]] = {column: [] for column in (*attributes, "all")}
    for record in records:
        if output not in record:
            continue
        scene, judged = record["scene"], record[output]
        common = [a for a in attributes if all(has_attribute(name, a, scene["count"]) for name in (prompt, output))]
        for attribute in common:
            right[attribute].append(judged[attribute] == scene[attribute])
        right["all"].append(all(judged[a] == scene[a] for a in common))
    return [f for column, values in right.items() for f in share(row, column, values, target=targets.get(column))]


def colour_and_shape(row: str, records: Sequence[Record], output: str, target: float) -> list[Figure]:
    """The shares of outputs with the colour and the shape of the scene; the target is for both together."""
    pairs = [(record[output], record["scene"]) for record in records if output in record]
    figures: list[Figure] = []
    for column, names in (("both", ("colour", "shape")), ("colour", ("colour",)), ("shape", ("shape",))):
        right = [all(judged[a] == scene[a] for a in names) for judged, scene in pairs]
        figures += share(row, column, right, target=target if column == "both" else None)
    return figures


def _interpolation(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for run, mixed in INTERPOLATIONS.items():
        shape = f"{mixed.shape}{', grey' if mixed.grey else ''}"
        for output in ALL:
            row = f"colour: {mixed.colour}, shape: {shape} → {output}"
            figures += colour_and_shape(row, records.get(run, ()), output, _INTERPOLATION)
    return figures


def _held(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for held, output in (("video", "audio"), ("audio", "video")):
        row = f"{held} held → {output}"
        made = records.get(f"held_{held}", ())
        onsets = [_same_onsets(r[output]["onsets"], r["scene"]["onsets"]) for r in made]
        figures += share(row, "onsets", onsets, target=_HELD["onsets"])
        figures += against_scene(row, made, held, output, _HELD)
    return figures


def _same_onsets(judged: Sequence[float], true: Sequence[float]) -> bool:
    return len(judged) == len(true) and all(abs(a - b) <= _NEAR for a, b in zip(judged, true))
