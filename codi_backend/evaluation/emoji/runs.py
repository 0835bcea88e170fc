"""The runs of an evaluation on the emoji dataset: prompts from its rows, and the judged results."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...data.world import SAMPLE_RATE
from ...models.autoencoders import resample
from ...pipeline import CoDi
from ..prompts import Empty
from ..runs import Run, generate
from .judges import JUDGES, build_judge
from .manifest import rows_of
from .prompts import Content, StyleAlone, read

_ORDER_SEED = 0
JOINT = ("text", "image", "audio")


@dataclass(frozen=True)
class EmojiRun(Run):
    """A run with rows of one kind of the manifest; `split` "train" or "test" is that of the rows."""

    kind: str = "image"


_IMAGE, _TEXT, _AUDIO = Content("image"), Content("text"), Content("audio")
RUNS = {
    run.name: run
    for run in (
        EmojiRun("text_to_image", _TEXT, ("image",)),
        EmojiRun("text_to_image_unseen", _TEXT, ("image",), split="test"),
        EmojiRun("image_to_text", _IMAGE, ("text",)),
        EmojiRun("image_to_text_unseen", _IMAGE, ("text",), split="test"),
        EmojiRun("text_to_speech", _TEXT, ("audio",), kind="speech"),
        EmojiRun("text_to_speech_unseen", _TEXT, ("audio",), kind="speech", split="test"),
        EmojiRun("speech_to_image", _AUDIO, ("image",), kind="speech"),
        EmojiRun("speech_to_image_unseen", _AUDIO, ("image",), kind="speech", split="test"),
        EmojiRun("image_to_speech", _IMAGE, ("audio",), kind="image+speech"),
        EmojiRun("text_to_instrument", _TEXT, ("audio",), kind="instrument"),
        EmojiRun("text_to_instrument_unseen", _TEXT, ("audio",), kind="instrument", split="test"),
        EmojiRun("image_to_instrument", _IMAGE, ("audio",), kind="image+instrument"),
        EmojiRun("joint_of_nothing", Empty(), JOINT, "paper"),
        EmojiRun("joint_of_style", StyleAlone(), JOINT, "paper"),
        EmojiRun("independent_of_style", StyleAlone(), JOINT, "none"),
        EmojiRun("held_image_speech", Empty(), ("audio",), "paper", kind="image+speech", held="image"),
        EmojiRun("held_image_instrument", Empty(), ("audio",), "paper", kind="image+instrument", held="image"),
    )
}


class EmojiJudges:
    """The rows of a dataset and the judges that know them.

    Parameters
    ----------
    dataset : Path
        Folder of `codi dataset emoji`. `ValueError` or `FileNotFoundError` with a sentence if it has not all kinds of
        rows that the judges need.
    """

    def __init__(self, dataset: Path):
        self.dataset = dataset
        self._judges = {name: build_judge(dataset, name) for name in JUDGES}
        played = rows_of(dataset, ("image+instrument",), "train")
        self._shows = {instrument_of(row): row["concept"] for row in played}
        self._rows: dict[str, list[dict[str, str]]] = {}  # by run
        self._concepts = sorted(self._judges["concept"].labels)

    @property
    def identity(self) -> dict[str, str]:
        """What results depend on: the digest of the manifest."""
        return {"data": hashlib.sha256((self.dataset / "metadata.csv").read_bytes()).hexdigest()[:12]}

    def rows(self, run: EmojiRun, first: int, size: int) -> list[dict[str, Any]]:
        """The rows of prompts number `first` to ``first + size``; in a fixed random order, and again after the last."""
        if run.name not in self._rows:
            rows = rows_of(self.dataset, (run.kind,), run.split)
            if run.kind == "image+speech":  # an image of an instrument may be given either sound
                rows = [row for row in rows if row["concept"] not in self._shows.values()]
            self._rows[run.name] = rows
        rows = self._rows[run.name]
        order = np.random.default_rng(_ORDER_SEED).permutation(len(rows))
        return [rows[order[i % len(rows)]] for i in range(first, first + size)]

    def judge(self, codi: CoDi, name: str, content: Any) -> dict[str, Any]:
        """The judged labels of one generated text, image ``[3, H, W]`` or waveform ``[1, N]``."""
        if name == "text":
            return {"text": content, "concept": first_concept(content, self._concepts)}
        if name == "image":
            return {key: self._judges[key].rank(content)[0] for key in ("concept", "style")}
        wave = resample(content, codi.config.audio_autoencoder.mel.sample_rate, SAMPLE_RATE)
        return self._of_audio(wave)

    def _of_audio(self, wave: Tensor) -> dict[str, Any]:
        labels = {key: self._judges[key].rank(wave)[0] for key in ("sound", "word", "instrument", "notes")}
        spoken = labels["sound"] == "speech"
        return labels | {"concept": labels["word"] if spoken else self._shows.get(labels["instrument"])}


def instrument_of(row: Mapping[str, Any]) -> str:
    """The instrument of a performance, by the name of its file."""
    return Path(row["audio"]).name.split("-")[0].replace("_", " ")


def first_concept(text: str, concepts: list[str]) -> str | None:
    """The concept that a text names first, the longest of those that begin there; None if it names none."""
    lower = text.lower()
    found = []
    for concept in concepts:
        if match := re.search(rf"\b{re.escape(concept.lower())}\b", lower):
            found.append((match.start(), -len(concept), concept))
    return min(found)[2] if found else None


def generate_and_judge(
    judges: EmojiJudges, codi: CoDi, run: EmojiRun, heading: Mapping[str, Any], first: int, size: int
) -> list[dict[str, Any]]:
    """The records of one batch: the row's labels under "row", and the judged labels under the name of each output."""
    rows = judges.rows(run, first, size)
    options = {}
    if run.held:
        content = read(run.held, rows, judges.dataset).to(next(codi.parameters()).device)
        options["held"] = {run.held: codi.encode(run.held, content)}
    generated = generate(codi, run, heading, first, run.prompt.encode(codi, rows, judges.dataset), **options)
    records = []
    for i, row in enumerate(rows):
        record: dict[str, Any] = {"row": {name: row[name] for name in ("text", "concept", "style", "voice")}}
        if "instrument" in run.kind:
            record["row"]["plays"] = instrument_of(row)
        for name, content in generated.items():
            contents = content["waveform"] if name == "audio" else content
            record[name] = judges.judge(codi, name, contents[i].cpu() if name != "text" else contents[i])
        records.append(record)
    return records
