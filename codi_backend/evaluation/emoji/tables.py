"""The tables of an evaluation on the emoji dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..figures import Figure, share
from ..tables import Table
from .manifest import number_of_notes
from .runs import JOINT

_Records = Mapping[str, Sequence[Mapping[str, Any]]]

_IMAGES = {
    "text → image": ("text_to_image", {"concept": 0.80, "style": 0.90}),
    "text → image, unseen pairs": ("text_to_image_unseen", {}),
    "image → text": ("image_to_text", {"concept": 0.80}),
    "image → text, unseen pairs": ("image_to_text_unseen", {}),
    "speech → image": ("speech_to_image", {"concept": 0.60}),
    "speech → image, unseen voices": ("speech_to_image_unseen", {}),
}
_SPEECH = {
    "text → speech": ("text_to_speech", {}),
    "text → speech, unseen voices": ("text_to_speech_unseen", {}),
    "image → speech": ("image_to_speech", {"word": 0.50}),
    "held image → speech": ("held_image_speech", {"word": 0.70}),
}
_INSTRUMENTS = {
    "text → instrument": ("text_to_instrument", {"instrument": 0.80, "notes": 0.80}),
    "text → instrument, unseen performances": ("text_to_instrument_unseen", {}),
    "image → instrument": ("image_to_instrument", {"instrument": 0.80}),
    "held image → instrument": ("held_image_instrument", {"instrument": 0.70}),
}
_JOINT = {
    "empty prompt": ("joint_of_nothing", 0.80),
    "style alone": ("joint_of_style", 0.80),
    "style alone, independent": ("independent_of_style", None),
}


def make_tables(records: _Records) -> list[Table]:
    """All tables from the records by run; a run without records has no figures."""
    return [
        Table(
            "images",
            "Images and their texts",
            "The share of results with the concept of the prompt, and with its style where the prompt has one. Unseen "
            "pairs: the concept is in the training in other styles only. Unseen voices are in no stage of training.",
            ("concept", "style"),
            tuple(_images(records)),
        ),
        Table(
            "speech",
            "Spoken names",
            "Speech: the share of results that a judge takes for speech. Word: the share in which the concept's name "
            "is recognised, among all names. Held: the image is a held stream, and the prompt is empty.",
            ("speech", "word"),
            tuple(_speech(records)),
        ),
        Table(
            "instruments",
            "Instruments",
            "The share of results with the instrument and the number of notes of the caption. Unseen "
            "performances are combinations of number of notes, tempo, direction and register that training never had.",
            ("instrument", "notes"),
            tuple(_instruments(records)),
        ),
        Table(
            "joint",
            "Text, image and audio together",
            "The prompt does not state a concept. The share of results in which streams have the same one. Audio has "
            "the concept that is spoken, or that shows the instrument. Independent: alignment none, one candidate.",
            ("all three", "text + image", "text + audio", "image + audio", "style of the image"),
            tuple(_joint(records)),
        ),
    ]


def _images(records: _Records) -> list[Figure]:
    figures: list[Figure] = []
    for row, (run, targets) in _IMAGES.items():
        made = records.get(run, ())
        output = row.split(",")[0].split(" → ")[1]
        concept = [r[output]["concept"] == r["row"]["concept"] for r in made]
        figures += share(row, "concept", concept, target=targets.get("concept"))
        if row.startswith("text"):
            style = [r[output]["style"] == r["row"]["style"] for r in made]
            figures += share(row, "style", style, target=targets.get("style"))
    return figures


def _speech(records: _Records) -> list[Figure]:
    figures: list[Figure] = []
    for row, (run, targets) in _SPEECH.items():
        made = records.get(run, ())
        is_speech = [r["audio"]["sound"] == "speech" for r in made]
        word = [right and r["audio"]["word"] == r["row"]["concept"] for right, r in zip(is_speech, made)]
        figures += share(row, "speech", is_speech)
        figures += share(row, "word", word, target=targets.get("word"))
    return figures


def _instruments(records: _Records) -> list[Figure]:
    figures: list[Figure] = []
    for row, (run, targets) in _INSTRUMENTS.items():
        made = records.get(run, ())
        right = [r["audio"]["sound"] == "instrument" and r["audio"]["instrument"] == r["row"]["plays"] for r in made]
        figures += share(row, "instrument", right, target=targets.get("instrument"))
        if row.startswith("text"):
            notes = [r["audio"]["notes"] == number_of_notes(r["row"]) for r in made]
            figures += share(row, "notes", notes, target=targets.get("notes"))
    return figures


def _joint(records: _Records) -> list[Figure]:
    figures: list[Figure] = []
    for row, (run, target) in _JOINT.items():
        made = records.get(run, ())
        concepts = [{name: r[name]["concept"] for name in JOINT} for r in made]
        figures += share(row, "all three", [_agree(c, JOINT) for c in concepts], target=target)
        for pair in (("text", "image"), ("text", "audio"), ("image", "audio")):
            figures += share(row, " + ".join(pair), [_agree(c, pair) for c in concepts])
        if run != "joint_of_nothing":
            figures += share(row, "style of the image", [r["image"]["style"] == r["row"]["style"] for r in made])
    return figures


def _agree(concepts: Mapping[str, str | None], streams: Sequence[str]) -> bool:
    values = {concepts[name] for name in streams}
    return len(values) == 1 and None not in values
