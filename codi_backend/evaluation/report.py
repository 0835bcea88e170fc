"""`codi evaluate`: fidelity to the prompt, and agreement between jointly generated streams."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..data.captions import ATTRIBUTES, caption
from ..data.world import COLOURS, COUNTS, SHAPES, Scene, sample_scene
from ..model import CoDi
from .judges import judge_image, judge_sound

_FIDELITY = {"image": ("colour", "shape", "count"), "audio": ("colour", "shape", "count", "tempo")}
_COUPLED = {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "count": 1 / len(COUNTS)}  # chance
_SCENE_SEED = 1000  # scenes that training never drew
_BATCH = 48


def evaluate(
    source: str | os.PathLike | Iterable[str | os.PathLike] = "mini",
    prompts: int = 48,
    seed: int = 0,
    steps: int = 20,
    guidance: float | None = None,
    out: Path | None = None,
) -> str:
    """Generate picture and sound for fixed prompts and judge them by rule.

    Fidelity is measured on full captions. Coupling leaves one attribute out of the caption and counts how often picture
    and sound agree on it, generated jointly (alignment "paper") and without hearing each other ("none"); what neither
    prompt nor partner fixes can only agree by chance.

    Parameters
    ----------
    source
        See `CoDi.load`.
    prompts : int
        Prompts for each figure.
    out : Path, optional
        Folder for ``evaluation.json`` and ``evaluation.md``.

    Returns
    -------
    str
        The tables in Markdown.
    """
    if isinstance(source, list) and source == ["mini"]:
        source = "mini"
    codi = CoDi.load(source)
    scenes = [sample_scene(_SCENE_SEED, i, "all") for i in range(prompts)]
    settings = {"steps": steps, "guidance": codi.config.guidance if guidance is None else guidance, "seed": seed}
    judged = _judged(codi, scenes, ATTRIBUTES, alignment="paper", **settings)
    fidelity = {
        stream: {
            attribute: _share([getattr(j[stream], attribute) == getattr(scene, attribute) for j, scene in relevant])
            for attribute in attributes
            # One note has no tempo.
            if (relevant := [(j, s) for j, s in zip(judged, scenes) if attribute != "tempo" or s.count > 1])
        }
        for stream, attributes in _FIDELITY.items()
    }
    coupling: dict[str, dict[str, Any]] = {}
    for attribute, chance in _COUPLED.items():
        said = tuple(a for a in ATTRIBUTES if a != attribute)
        row: dict[str, Any] = {"chance": round(chance, 3)}
        for alignment in ("paper", "none"):
            row[alignment] = _share(
                [
                    getattr(j["image"], attribute) is not None
                    and getattr(j["image"], attribute) == getattr(j["audio"], attribute)
                    for j in _judged(codi, scenes, said, alignment=alignment, **settings)
                ]
            )
        coupling[attribute] = row
    report = {"model": codi.config.name, "prompts": prompts, **settings, "fidelity": fidelity, "coupling": coupling}
    text = _markdown(report)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n")
        (out / "evaluation.md").write_text(text)
    return text


def _judged(
    codi: CoDi,
    scenes: Sequence[Scene],
    said: tuple[str, ...],
    *,
    alignment: str,
    steps: int,
    guidance: float,
    seed: int,
) -> list[dict[str, Any]]:
    judged = []
    for first in range(0, len(scenes), _BATCH):
        texts = [caption(scene, said) for scene in scenes[first : first + _BATCH]]
        # The batch's place goes into the seed, so that no two prompts share their noise.
        out = codi.generate(
            codi.prompt("text", texts),
            ("image", "audio"),
            steps=steps,
            guidance=guidance,
            seed=seed + first,
            alignment=alignment,
        )
        sounds, rate = out["audio"]["waveform"], out["audio"]["sample_rate"]
        judged += [
            {"image": judge_image(picture), "audio": judge_sound(sound, rate)}
            for picture, sound in zip(out["image"], sounds)
        ]
    return judged


def _share(right: Sequence[bool]) -> dict[str, float]:
    """Share of true values with its 95% Wilson interval."""
    n, p, z = len(right), sum(right) / len(right), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"share": round(p, 3), "low": round(max(0.0, middle - half), 3), "high": round(min(1.0, middle + half), 3)}


def _cell(share: dict[str, float]) -> str:
    return f"{share['share']:.1%} ({share['low']:.0%} to {share['high']:.0%})"


def _markdown(report: dict[str, Any]) -> str:
    lines = [
        f"Model {report['model']}, {report['prompts']} prompts a figure, {report['steps']} steps, "
        f"guidance {report['guidance']}, seed {report['seed']}; in brackets the 95% interval.",
        "",
        "| output | " + " | ".join(ATTRIBUTES) + " |",
        "|---|" + "---|" * len(ATTRIBUTES),
    ]
    for stream, row in report["fidelity"].items():
        lines.append(f"| {stream} | " + " | ".join(_cell(row[a]) if a in row else "" for a in ATTRIBUTES) + " |")
    lines += [
        "",
        "| left out of the prompt | jointly, alignment paper | alignment none | chance |",
        "|---|---|---|---|",
    ]
    for attribute, row in report["coupling"].items():
        lines.append(f"| {attribute} | {_cell(row['paper'])} | {_cell(row['none'])} | {row['chance']:.0%} |")
    return "\n".join(lines) + "\n"
