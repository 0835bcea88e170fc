"""The runs of an evaluation: prompts, outputs, and the judged results.

Each run serves several tables. With alignment "none" streams do not attend to each other, so one run gives the results
of single-output runs, bit for bit. A run whose prompts leave out half of the attributes measures all of them. Single
videos have their own runs, since they may have auxiliary streams. Videos are slow, so "coupling_none_video" is the only
run without alignment that has them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..conditioning.prompt import Prompt
from ..config import CoDiConfig
from ..data.world import SAMPLE_RATE, sample_scene
from ..pipeline import CoDi
from ..sampling.auxiliary import auxiliary_streams
from .judges import judge_audio, judge_image, judge_text, judge_video
from .overlap import overlap
from .prompts import Conditioning, Empty, Mixed, Partial, Whole, prompt_modalities, render
from .records import write_batch

Batch = Callable[[CoDi, Any, dict[str, Any], int, int], list[dict[str, Any]]]
"""Generates and judges a batch of a run: model, run, heading, first prompt and size -> records."""

ALL = ("text", "image", "video", "audio")
_QUICK = ("text", "image", "audio")

SCENE_SEED = 1000  # of scenes outside the training set


@dataclass(frozen=True)
class Run:
    """One set of prompts and the outputs that are generated from it.

    Attributes
    ----------
    outputs : tuple of str
        The outputs; with alignment "none", those of them that the model has.
    split : str
        Whether the scenes' (colour, shape, count) triples occur in training: "train" or "held_out".
    prompts_per_sample : int
        Prompts for each sample of the tables: 2 if a prompt leaves out half of the attributes, more for runs behind
        narrow targets.
    held : str or None
        The held stream, the scene's ground truth, that the outputs attend to.
    start_strength : float or None
        Strength of the start image, which shows the scene; the results are compared with it.
    """

    name: str
    prompt: Conditioning
    outputs: tuple[str, ...] = ALL
    alignment: str = "none"
    split: str = "train"
    prompts_per_sample: int = 1
    held: str | None = None
    start_strength: float | None = None

    @property
    def streams(self) -> tuple[str, ...]:
        """The generated streams and the held one."""
        return (*self.outputs, *([self.held] if self.held else []))

    def auxiliary_streams(self, config: CoDiConfig) -> list[str]:
        """The auxiliary streams of the run, see `sampling.auxiliary`."""
        return auxiliary_streams(config, self.outputs, [self.held] if self.held else [], self.alignment)

    def prompts(self, samples: int, clips: int | None) -> int:
        """Number of prompts for tables of `samples` results, or of `clips` results if videos are generated."""
        return self.prompts_per_sample * (
            min(samples, clips) if clips is not None and "video" in self.outputs else samples
        )


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
        # Without videos, which share the network of images.
        *(Run(name, prompt, _QUICK) for name, prompt in INTERPOLATIONS.items()),
        *(Run(name, Partial(), outputs, "paper", prompts_per_sample=2) for name, outputs in COUPLINGS.items()),
        # Chance is a narrow target.
        Run("coupling_none", Partial(), _QUICK, prompts_per_sample=10),
        Run("coupling_none_video", Partial(), prompts_per_sample=4),
        Run("held_video", Empty(), ("audio",), "paper", held="video"),
        Run("held_audio", Empty(), ("video",), "paper", held="audio"),
    )
}


@dataclass(frozen=True)
class Settings:
    """Sampling settings of all runs of an evaluation.

    Attributes
    ----------
    candidates : int
        N of best-of-N for results whose streams attend to each other.
    """

    seed: int
    steps: int
    sampler: str
    guidance: float
    candidates: int


def independent(streams: Collection[str]) -> str:
    """The name of the run of these streams without alignment, with the prompts of the couplings."""
    return "coupling_none_video" if "video" in streams else "coupling_none"


def choose(runs: Mapping[str, Run], names: Iterable[str] | None) -> list[Run]:
    """The runs of these names, or all. A `ValueError` lists the names for an unknown one."""
    if unknown := sorted(set(names or ()) - runs.keys()):
        raise ValueError(f"There is no run {', '.join(unknown)}; choose from {', '.join(runs)}.")
    return [run for run in runs.values() if not names or run.name in names]


def lacking(codi: CoDi, run: Run) -> str | None:
    """The reason why this model cannot perform a run, or None."""
    if missing := run.prompt.modalities - prompt_modalities(codi):
        return f"the model has no prompt encoder for {', '.join(sorted(missing))}"
    missing = [name for name in run.streams if name not in codi.outputs]
    idle = len(missing) == len(run.streams) or ("video" in missing and run.name == independent(["video"]))
    if missing and (run.alignment != "none" or idle):
        return f"the model cannot generate {', '.join(missing)}"
    return None


def heading(codi: CoDi, weights: str, run: Run, settings: Settings) -> dict[str, Any]:
    """Everything that a run's results depend on; `weights` is the `fingerprint` of the run."""
    auxiliary = run.auxiliary_streams(codi.config)
    return {
        "run": run.name,
        "model": codi.config.name,
        "weights": weights,
        "outputs": [name for name in run.outputs if name in codi.outputs],
        "alignment": run.alignment,
        **dataclasses.asdict(settings),
        "candidates": settings.candidates if run.alignment == "paper" and len({*run.streams, *auxiliary}) > 1 else 1,
        **({"companions": auxiliary} if auxiliary else {}),
    }


def perform(
    codi: CoDi,
    run: Run,
    heading: dict[str, Any],
    path: Path,
    todo: Sequence[tuple[int, int]],
    total: int,
    log: Callable[[str], None],
    batch: Batch,
) -> None:
    """Generate and judge batches, of which `todo` has the first prompt and the size, of a run of `total` prompts.

    Each is written when it is done, see `records`.
    """
    begun = time.monotonic()
    for done, (first, size) in enumerate(todo, 1):
        write_batch(path, heading, first, batch(codi, run, heading, first, size))
        left = (len(todo) - done) * (time.monotonic() - begun) / done
        log(f"{run.name}: {first + size} of {total} prompts, {left / 60:.1f} minutes left")


def generate_and_judge(codi: CoDi, run: Run, heading: dict[str, Any], first: int, size: int) -> list[dict[str, Any]]:
    """The records of a batch of scenes.

    A record contains the attributes of its scene under "scene", the notes of its prompt, and the judged attributes
    under the name of each output.
    """
    scenes = [sample_scene(SCENE_SEED, i, run.split) for i in range(first, first + size)]
    options = {}
    if run.held:
        content = render(run.held, scenes).to(next(codi.parameters()).device)
        options["held"] = {run.held: codi.encode(run.held, content, SAMPLE_RATE if run.held == "audio" else None)}
    if run.start_strength is not None:
        options |= {"start": render("image", scenes), "fidelity": run.start_strength}
    generated = generate(codi, run, heading, first, run.prompt.encode(codi, scenes, first), **options)
    records = []
    for i, scene in enumerate(scenes):
        facts = {name: getattr(scene, name) for name in ("colour", "shape", "count", "tempo")}
        record: dict[str, Any] = {"scene": {**facts, "onsets": _rounded(scene.onsets)}}
        record |= run.prompt.notes(scene, first + i)
        for name, content in generated.items():
            contents = content["waveform"] if name == "audio" else content
            record[name] = judge(codi, name, contents[i])
        if run.start_strength is not None:
            record["image"]["overlap"] = round(overlap(generated["image"][i], options["start"][i]), 4)
        records.append(record)
    return records


def generate(
    codi: CoDi, run: Run, heading: Mapping[str, Any], first: int, prompt: Prompt, **options: Any
) -> dict[str, Any]:
    """What `CoDi.generate` gives for a batch with the settings of its heading.

    The seed depends on the batch, so that no two prompts share their noise.
    """
    return codi.generate(
        prompt,
        heading["outputs"],
        steps=heading["steps"],
        sampler=heading["sampler"],
        guidance=heading["guidance"],
        seed=heading["seed"] + first,
        alignment=run.alignment,
        candidates=heading["candidates"],
        **options,
    )


def judge(codi: CoDi, name: str, content: Any) -> dict[str, Any]:
    """The judged attributes of one generated content: a text, pixels, or a waveform ``[1, N]``."""
    if name == "text":
        return {**dataclasses.asdict(judge_text(content)), "text": content}
    if name == "image":
        judged = judge_image(content)
        return {"colour": judged.colour, "shape": judged.shape, "count": judged.count}
    if name == "audio":
        judged = judge_audio(content, codi.config.audio_autoencoder.mel.sample_rate)
    else:
        judged = judge_video(content, codi.config.image_autoencoder.frame_rate)
    facts = {a: getattr(judged, a) for a in ("colour", "shape", "count", "tempo")}
    return {**facts, "onsets": _rounded(judged.onsets)}


def _rounded(seconds: Iterable[float]) -> list[float]:
    return [round(s, 4) for s in seconds]
