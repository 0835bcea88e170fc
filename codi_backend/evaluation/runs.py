"""The runs of an evaluation: what is generated from which prompts, and the judged results on disk.

Runs are few because each serves several tables. With alignment "none" the streams do not hear each other, so that one
run makes what single-output runs would make, bit for bit; and a run whose prompts leave out half of the attributes
measures all of them. Videos by themselves have runs of their own: they may be made in company, see `CoDi.companions`;
and they cost so much that of the runs without alignment only "coupling_none_video" has them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import CoDiConfig
from ..data.world import SAMPLE_RATE, sample_scene
from ..model import CoDi
from .judges import judge_image, judge_sound, judge_text, judge_video
from .overlap import overlap
from .prompts import Guide, Mixed, Nothing, Partial, Whole, prompt_modalities, render

ALL = ("text", "image", "video", "audio")
_QUICK = ("text", "image", "audio")

SCENE_SEED = 1000  # scenes that training never drew
_BATCH = 20


@dataclass(frozen=True)
class Run:
    """One set of prompts and what is made of it.

    Attributes
    ----------
    outputs : tuple of str
        What is generated; with alignment "none", as many of them as the model has.
    split : str
        Whether the scenes' triples occur in training.
    rounds : int
        Prompts for each sample of the tables: 2 where a prompt leaves out half of the attributes, and a multiple where
        more samples than elsewhere are wanted.
    held : str or None
        The stream that is given, as the scene's ground truth, for the outputs to hear.
    fidelity : float or None
        How much of the scene's picture, from which runs begin, is to stay; the results are compared with it.
    """

    name: str
    prompt: Guide
    outputs: tuple[str, ...] = ALL
    alignment: str = "none"
    split: str = "train"
    rounds: int = 1
    held: str | None = None
    fidelity: float | None = None

    @property
    def streams(self) -> tuple[str, ...]:
        """What is generated or held."""
        return (*self.outputs, *([self.held] if self.held else []))

    def company(self, config: CoDiConfig) -> set[str]:
        """In which company the streams are made beside, see `CoDi.companions`."""
        return config.company(self.outputs, [self.held] if self.held else [], self.alignment)

    def prompts(self, samples: int, clips: int | None) -> int:
        """How many prompts serve tables of `samples` results, `clips` where videos are among them."""
        return self.rounds * (min(samples, clips) if clips is not None and "video" in self.outputs else samples)


_PROMPTS = (("text", "", "train"), ("text", "_held_out", "held_out"), *((name, "", "train") for name in ALL[1:]))
INTERPOLATIONS = {
    "interpolation_text_image": Mixed("text", "image"),
    "interpolation_text_grey_image": Mixed("text", "image", grey=True),
    "interpolation_text_audio": Mixed("text", "audio"),
    "interpolation_image_audio": Mixed("image", "audio"),
    "interpolation_audio_image": Mixed("audio", "image"),
}
COUPLINGS = {
    "coupling_image_audio": ("image", "audio"),
    "coupling_text_image": ("text", "image"),
    "coupling_video_audio": ("video", "audio"),
    "coupling_text_audio": ("text", "audio"),
    "coupling_text_image_audio": ("text", "image", "audio"),
    "coupling_all": ALL,
}
RUNS = {
    run.name: run
    for run in (
        *(Run(f"fidelity_{name}{suffix}", Whole(name), _QUICK, split=split) for name, suffix, split in _PROMPTS),
        *(
            Run(f"video_from_{name}{suffix}", Whole(name), ("video",), "paper", split)
            for name, suffix, split in _PROMPTS
        ),
        # Of clips, what they would add is in the tables already: their pictures share the network.
        *(Run(name, prompt, _QUICK) for name, prompt in INTERPOLATIONS.items()),
        *(Run(name, Partial(), outputs, "paper", rounds=2) for name, outputs in COUPLINGS.items()),
        # Chance is a narrow target.
        Run("coupling_none", Partial(), _QUICK, rounds=10),
        Run("coupling_none_video", Partial(), rounds=4),
        Run("held_video", Nothing(), ("audio",), "paper", held="video"),
        Run("held_audio", Nothing(), ("video",), "paper", held="audio"),
    )
}


@dataclass(frozen=True)
class Settings:
    """What all runs of an evaluation share.

    Attributes
    ----------
    candidates : int
        Of how many candidates each result is the one whose streams agree best, where they hear each other.
    """

    seed: int
    steps: int
    sampler: str
    guidance: float
    candidates: int


def independent(streams: Collection[str]) -> str:
    """The name of the run that has these streams without alignment, on the prompts of the couplings."""
    return "coupling_none_video" if "video" in streams else "coupling_none"


def choose(runs: Mapping[str, Run], names: Iterable[str] | None) -> list[Run]:
    """The runs of these names, or all; a `ValueError` tells which there are."""
    if unknown := sorted(set(names or ()) - runs.keys()):
        raise ValueError(f"There is no run {', '.join(unknown)}; choose from {', '.join(runs)}.")
    return [run for run in runs.values() if not names or run.name in names]


def lacking(codi: CoDi, run: Run) -> str | None:
    """Why this model cannot do a run, or None if it can."""
    if missing := run.prompt.modalities - prompt_modalities(codi):
        return f"the model has no prompt encoder for {', '.join(sorted(missing))}"
    missing = [name for name in run.streams if name not in codi.outputs]
    idle = len(missing) == len(run.streams) or ("video" in missing and run.name == independent(["video"]))
    if missing and (run.alignment != "none" or idle):
        return f"the model cannot generate {', '.join(missing)}"
    return None


def heading(codi: CoDi, weights: str, run: Run, settings: Settings, first: int = 0) -> dict[str, Any]:
    """What a run's results depend on.

    Parameters
    ----------
    weights : str
        The `fingerprint` of those that have a part in it.
    first : int
        The prompt that it begins with, if another evaluation has those before.
    """
    company = run.company(codi.config)
    return {
        "run": run.name,
        "model": codi.config.name,
        "weights": weights,
        "outputs": [name for name in run.outputs if name in codi.outputs],
        "alignment": run.alignment,
        **dataclasses.asdict(settings),
        "candidates": settings.candidates if run.alignment == "paper" and len({*run.streams, *company}) > 1 else 1,
        **({"companions": [name for name in codi.outputs if name in company]} if company else {}),
        **({"first": first} if first else {}),
    }


def read_records(path: Path, heading: dict[str, Any]) -> list[dict[str, Any]]:
    """The results that lie in a run's file, if they were made under this heading; else none."""
    if not path.exists():
        return []
    saved = json.loads(path.read_text())
    records = saved.pop("records")
    return records if saved == heading else []


def perform(codi: CoDi, run: Run, heading: dict[str, Any], path: Path, total: int, say: Callable[[str], None]) -> None:
    """Generate and judge what the run's file lacks of `total` prompts, from the heading's first one on.

    The file is brought up to date after every batch. A record holds the attributes of its scene under "scene", the
    notes of its prompt, and under each output's name the judged attributes.
    """
    records = read_records(path, heading)
    if len(records) >= total:
        return
    del records[len(records) // _BATCH * _BATCH :]  # so that the noise is the same however often it was interrupted
    begun, before = time.monotonic(), len(records)
    while len(records) < total:
        size = min(_BATCH, total - len(records))
        records += _batch(codi, run, heading, heading.get("first", 0) + len(records), size)
        _write(path, heading, records)
        left = (total - len(records)) * (time.monotonic() - begun) / (len(records) - before)
        say(f"{run.name}: {len(records)} of {total} prompts, {left / 60:.1f} minutes left")


def _batch(codi: CoDi, run: Run, heading: dict[str, Any], first: int, size: int) -> list[dict[str, Any]]:
    scenes = [sample_scene(SCENE_SEED, i, run.split) for i in range(first, first + size)]
    options = {}
    if run.held:
        given = render(run.held, scenes).to(next(codi.parameters()).device)
        options["held"] = {run.held: codi.encode(run.held, given, SAMPLE_RATE if run.held == "audio" else None)}
    if run.fidelity is not None:
        options |= {"start": render("image", scenes), "fidelity": run.fidelity}
    generated = codi.generate(
        run.prompt.encode(codi, scenes, first),
        heading["outputs"],
        steps=heading["steps"],
        sampler=heading["sampler"],
        guidance=heading["guidance"],
        # The batch's place goes into the seed, so that no two scenes share their noise.
        seed=heading["seed"] + first,
        alignment=run.alignment,
        candidates=heading["candidates"],
        **options,
    )
    records = []
    for i, scene in enumerate(scenes):
        facts = {name: getattr(scene, name) for name in ("colour", "shape", "count", "tempo")}
        record: dict[str, Any] = {"scene": {**facts, "onsets": _rounded(scene.onsets)}}
        record |= run.prompt.notes(scene, first + i)
        for name, content in generated.items():
            contents = content["waveform"] if name == "audio" else content
            record[name] = judge(codi, name, contents[i])
        if run.fidelity is not None:
            record["image"]["overlap"] = round(overlap(generated["image"][i], options["start"][i]), 4)
        records.append(record)
    return records


def judge(codi: CoDi, name: str, content: Any) -> dict[str, Any]:
    """What is told of one content that the model has made: of a text, pixels, or a waveform ``[1, N]``."""
    if name == "text":
        return {**dataclasses.asdict(judge_text(content)), "text": content}
    if name == "image":
        judged = judge_image(content)
        return {"colour": judged.colour, "shape": judged.shape, "count": judged.count}
    if name == "audio":
        judged = judge_sound(content, codi.config.audio_autoencoder.mel.sample_rate)
    else:
        judged = judge_video(content, codi.config.image_autoencoder.frame_rate)
    facts = {a: getattr(judged, a) for a in ("colour", "shape", "count", "tempo")}
    return {**facts, "onsets": _rounded(judged.onsets)}


def _rounded(seconds: Iterable[float]) -> list[float]:
    return [round(s, 4) for s in seconds]


def _write(path: Path, heading: dict[str, Any], records: Sequence[dict[str, Any]]) -> None:
    """One record a line; whole or not at all, so that an interruption leaves the last state."""
    lines = ",\n".join(json.dumps(record) for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(f'{json.dumps(heading)[:-1]}, "records": [\n{lines}\n]}}\n')
    os.replace(part, path)
