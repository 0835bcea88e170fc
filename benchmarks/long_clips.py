"""Clips that are longer than those of the built-in model's training: in windows, and at once.

    python benchmarks/long_clips.py --clips 20 --out FOLDER [--only windows] [--steps 30] [--threads 1]
    python benchmarks/long_clips.py --memory

Videos with audio are generated from the captions of held-out scenes, one candidate each, and judged by rules. A clip's
record is a file in the folder; clips that are there are not made again, so a long run can be divided. Prints a Markdown
table of all records. Rows: `training`, clips of 2.56 s; the others, clips of 10.24 s: in windows of 2.56 s that overlap
by 1.28 or 0.64 s, and at once.

An object appears where no object was in the two frames before, and vanishes where none is in the two frames after.
Appearances are known to half a frame, 0.08 s. Columns:

* first: share of clips whose first appearance and first note are at most 0.08 s apart.
* notes: share of all notes that have an appearance within 0.08 s; chance: the same for another clip's appearances.
* objects: share of appearances that have a note within 0.08 s.
* appear: appearances per clip.
* count: share of clips that have the caption's number of objects at their end.
* vanish: objects that vanish, per second, within 0.32 s of a seam, which is the middle of an overlap, and elsewhere.
  Clips that are made at once have those of an overlap of 0.64 s.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

import codi_backend as cb
from codi_backend.data.captions import caption
from codi_backend.data.world import FRAME_RATE, sample_scene
from codi_backend.evaluation.judges import judge_audio, judge_image
from codi_backend.evaluation.runs import SCENE_SEED
from codi_backend.sampling.settings import WindowSettings
from codi_backend.sampling.windows import plan_windows

LONG = 10.24
KINDS: dict[str, dict[str, Any]] = {
    "training": {},
    "overlap 1.28": {"seconds": LONG, "window": 2.56, "overlap": 1.28},
    "overlap 0.64": {"seconds": LONG, "window": 2.56, "overlap": 0.64},
    "at once": {"seconds": LONG, "window": math.inf},
}
TOGETHER = 0.5 / FRAME_RATE + 1e-6  # seconds
NEAR_SEAM = 0.32
SAME_PLACE = 5.0  # pixels between the centres of one object in two frames


def events(video: Tensor) -> tuple[list[float], list[float], int]:
    """Seconds at which objects appear and vanish in ``[3, T, H, W]``, and the number of objects at the end."""
    frames = [
        [(o.left + o.width / 2, o.top + o.height / 2) for o in judge_image(frame).objects] for frame in video.unbind(1)
    ]

    def missing(place: tuple[float, float], where: range) -> bool:
        near = (frames[f] for f in where if 0 <= f < len(frames))
        return not any(math.dist(place, other) < SAME_PLACE for frame in near for other in frame)

    appear, vanish = [], []
    for f, objects in enumerate(frames):
        for place in objects:
            if f > 0 and missing(place, range(f - 2, f)):
                appear.append((f - 0.5) / FRAME_RATE)
            if f < len(frames) - 1 and missing(place, range(f + 1, f + 3)):
                vanish.append((f + 0.5) / FRAME_RATE)
    return appear, vanish, len(frames[-1])


def make(codi: cb.CoDi, index: int, steps: int | None, options: dict[str, Any]) -> dict[str, Any]:
    scene = sample_scene(SCENE_SEED, index)
    made = codi.generate(
        codi.prompt("text", [caption(scene)]), ["video", "audio"], seed=index, steps=steps, candidates=1, **options
    )
    appear, vanish, count = events(made["video"][0])
    notes = list(judge_audio(made["audio"]["waveform"][0], made["audio"]["sample_rate"]).onsets)
    return {"appear": appear, "vanish": vanish, "count": count, "notes": notes, "right": count == scene.count}


def matched(times: list[float], others: list[float]) -> list[bool]:
    return [any(abs(time - other) <= TOGETHER for other in others) for time in times]


def row(codi: cb.CoDi, records: list[dict[str, Any]], kind: str) -> str:
    seconds = LONG if kind != "training" else 2.56
    lengths = {"video": round(seconds * FRAME_RATE), "audio": round(seconds / 0.08)}
    windows = plan_windows(codi.config, lengths, WindowSettings(2.56, KINDS[kind].get("overlap", 0.64)))
    seams = [(before.end + after.begin) / 2 for before, after in itertools.pairwise(windows)]
    vanish = [min((abs(t - seam) for seam in seams), default=9.0) <= NEAR_SEAM for r in records for t in r["vanish"]]
    near = len(seams) * 2 * NEAR_SEAM * len(records)
    far = seconds * len(records) - near
    first = [bool(matched(r["notes"][:1], r["appear"][:1])) and matched(r["notes"][:1], r["appear"][:1])[0]
             for r in records]  # fmt: skip
    notes = [m for r in records for m in matched(r["notes"], r["appear"])]
    chance = [m for r, s in zip(records, records[1:] + records[:1]) for m in matched(r["notes"], s["appear"])]
    objects = [m for r in records for m in matched(r["appear"], r["notes"])]
    shares = [100 * sum(values) / max(1, len(values)) for values in (first, notes, chance, objects)]
    appear = sum(len(r["appear"]) for r in records) / len(records)
    right = 100 * sum(r["right"] for r in records) / len(records)
    at_seams = f"{sum(vanish) / near:.2f}" if near else ""
    cells = [f"{share:.0f}%" for share in shares] + [f"{appear:.1f}", f"{right:.0f}%", at_seams]
    return f"| {kind} | {len(records)} | {' | '.join(cells)} | {(len(vanish) - sum(vanish)) / far:.2f} |"


def memory(codi: cb.CoDi) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from host.test_host_memory import Peak

    print("| clip | peak of tensors while denoising, MB |\n|---|---|")
    prompt = codi.prompt("text", "three red stars")
    for kind, options in KINDS.items():
        with Peak() as peak:
            codi.generate_latents(prompt, ["video", "audio"], steps=2, **options)
        print(f"| {kind} | {peak.most / 1e6:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first clip, to divide them among processes")
    parser.add_argument("--out", type=Path, default=Path("long_clips"))
    parser.add_argument("--only", choices=list(KINDS), nargs="+", default=list(KINDS))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    codi = cb.CoDi.load("mini")
    if options.memory:
        memory(codi)
        return
    print("| clips | number | first | notes | chance | objects | appear | count | vanish at seams | elsewhere |")
    print("|---" * 10 + "|")
    for kind in options.only:
        records = []
        for index in range(options.first, options.first + options.clips):
            file = options.out / f"{kind.replace(' ', '_')}_{options.steps or codi.config.steps}_{index}.json"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(make(codi, index, options.steps, KINDS[kind])) + "\n", encoding="utf-8")
                print(f"{kind}: clip {index} is made", file=sys.stderr, flush=True)
            records.append(json.loads(file.read_text(encoding="utf-8")))
        print(row(codi, records, kind), flush=True)


if __name__ == "__main__":
    main()
