"""A new model of a user's data: `codi train all --data PATH --config FILE`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import CoDiConfig
from ..config.serialization import from_json
from ..data.augmentation import NONE, Augmentation
from ..data.broken import Broken
from ..data.checks import check_captions, read_all
from ..data.contents import Entry
from ..data.pairs import Pairs
from ..models.autoencoders.words import DECODER_SPECIAL, ENCODER_SPECIAL
from .execution import Execution
from .identity import data_digest
from .own_data import OwnData
from .recipe import Changes, check_changes
from .run_folder import write_config

_RECORD = "data.json"


@dataclass(frozen=True)
class Settings:
    """A configuration file: a JSON object with these fields, of which `model` is needed.

    Attributes
    ----------
    model : dict
        The fields of `CoDiConfig`. A text autoencoder without `words` gets those of the captions, and the sizes of the
        vocabularies that follow from them.
    training : dict of str to dict
        What differs from the recipe, by stage (``"diffuser_image"``) or phase (``"environment/text"``): fields of
        `Options`, and `prompts`.
    augmentation : Augmentation
    """

    model: dict[str, Any]
    training: Changes = field(default_factory=dict)
    augmentation: Augmentation = NONE

    @classmethod
    def read(cls, path: Path) -> Settings:
        """`FileNotFoundError` or `ValueError` with a sentence that names the file and what is wrong."""
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no configuration {path}: give a file as codi_backend/presets/emoji.json."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            names = {field.name for field in dataclasses.fields(cls)}
            if not isinstance(values, dict) or "model" not in values or not values.keys() <= names:
                raise ValueError(f"it must be an object with {', '.join(sorted(names))}, of which model is needed")
            for name, value in values.items():
                if not isinstance(value, dict):
                    raise ValueError(f"{name} must be an object")
            changes = from_json(Augmentation, json.dumps(values.get("augmentation", {})))
            settings = cls(values["model"], values.get("training", {}), changes)
            check_changes(settings.training)
            settings.configure(())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"The configuration {path} cannot be used: {str(error).rstrip('.')}.") from error
        return settings

    def configure(self, words: tuple[str, ...]) -> CoDiConfig:
        """The model's configuration with these words, unless it lists its own."""
        values = dict(self.model)
        text = values.get("text_autoencoder")
        if isinstance(text, dict) and text.get("words") is None:
            sizes = {"encoder": len(words) + ENCODER_SPECIAL, "decoder": len(words) + DECODER_SPECIAL}
            networks = {name: {**text.get(name, {}), "vocab_size": size} for name, size in sizes.items()}
            values["text_autoencoder"] = text | networks | {"words": list(words)}
        return CoDiConfig.from_json(json.dumps(values))

    def digest(self) -> str:
        """Of the model and the augmentation; the training may be changed between stages."""
        facts = json.dumps([self.model, dataclasses.asdict(self.augmentation)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()


def begin(
    settings: Settings,
    data: Path,
    out: Path,
    report: Callable[[str], None] = print,
    execution: Execution | None = None,
    skip_broken: bool = False,
) -> OwnData:
    """Begin the run folder of a new model, or go on with it, and return its data.

    The first time every file is read once. The configuration with the vocabulary is written into ``out/config.json``.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence about what is wrong with the data, or about an earlier run in `out` with other data or another
        configuration.
    """
    accelerator = (execution or Execution()).accelerator()
    with accelerator.main_process_first():
        once = report if accelerator.is_main_process else _silent
        return _begin(settings, data, out, once, execution.workers if execution else 0, Broken(skip_broken))


def _begin(
    settings: Settings, data: Path, out: Path, report: Callable[[str], None], workers: int, broken: Broken
) -> OwnData:
    config = settings.configure(())
    names = _modalities(config)
    pairs = Pairs.find(data, config, ("audio",) if "audio" in names else (), report, broken)
    entries = [Entry(e.name, {m: c for m, c in e.contents.items() if m in names}, e.split) for e in pairs.every]
    pairs = Pairs(entries, config, (), str(data), settings.augmentation)
    pairs = check_captions(pairs, names, report, broken)
    identity = {"data": data_digest(pairs), "configuration": settings.digest()}
    path = out / _RECORD
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if changed := [f"another --{_OPTION[name]}" for name, value in identity.items() if record[name] != value]:
            raise ValueError(f"{out} belongs to a run with {' and '.join(changed)}: give the same, or another --out.")
        unreadable = set(record["unreadable"])
    else:
        unreadable = _unreadable(pairs, names, workers, broken, report)
    usable = [row for row, entry in enumerate(pairs.entries) if entry.name not in unreadable]
    own = OwnData(pairs.at(usable))
    config = settings.configure(own.words() if config.text_autoencoder else ())
    own = OwnData(Pairs(own.pairs.entries, config, (), pairs.source, settings.augmentation))
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        broken.write(out / "left_out.txt")
        write_config(out, config)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(identity | {"unreadable": sorted(unreadable)}), encoding="utf-8")
        os.replace(partial, path)
        if broken.faults:
            report(f"{len(broken.faults)} entries cannot be used and are left out; {out / 'left_out.txt'} lists them.")
        if config.text_autoencoder:
            report(f"The captions have {len(config.text_autoencoder.words)} different words.")
    return own


_OPTION = {"data": "data", "configuration": "config"}


def _modalities(config: CoDiConfig) -> tuple[str, ...]:
    """The modalities of a model's data."""
    networks = config.diffuser.networks
    video = ("video",) if "image" in networks and networks["image"].temporal else ()
    return ("text", *(name for name in ("image", "audio") if name in networks), *video)


def _unreadable(
    pairs: Pairs, names: tuple[str, ...], workers: int, broken: Broken, report: Callable[[str], None]
) -> set[str]:
    """The names of entries with a content that cannot be read; every content is read once."""
    found: set[str] = set()
    for name in names:
        firsts = {entry.contents[name]: entry for entry in reversed(pairs.entries) if name in entry.contents}
        contents = Pairs(list(firsts.values()), pairs.config, (name,), pairs.source)
        report(f"reading {len(contents)} contents: {name}")
        rows = read_all(contents, workers, broken, functools.partial(_read, contents))
        readable = {contents.entries[row].contents[name] for row in rows}
        found |= {e.name for e in pairs.entries if name in e.contents and e.contents[name] not in readable}
    return found


def _read(pairs: Pairs, row: int) -> int:
    _ = pairs[row]
    return row


def _silent(line: str) -> None:
    pass
