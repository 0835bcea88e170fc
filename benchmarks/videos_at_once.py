"""Time of a prediction for many videos: a few at a time, as on a CPU, and all at once.

    python benchmarks/videos_at_once.py [--batches 8 20 80] [--threads 1] [--repeat 3]

The built-in model's network, without other streams. Both ways take turns, and the best of each counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codi_backend.models.diffuser import diffuser as joint
from codi_backend.pipeline import CoDi

FEW, ALL = joint._FRAMES_AT_ONCE, sys.maxsize


@torch.inference_mode()
def seconds(codi: CoDi, batch: int, at_once: int) -> float:
    """One prediction for a batch."""
    joint._FRAMES_AT_ONCE = at_once
    prompt = codi.prompt("text", "two red stars, slowly").embedding.expand(batch, -1, -1)
    videos = torch.randn(batch, *codi.latent_shape("video"), generator=torch.Generator().manual_seed(0))
    begun = time.perf_counter()
    codi.diffuser({"video": videos}, torch.full((batch,), 500), prompt)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 20, 80])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    codi = CoDi.load("mini")
    seconds(codi, 1, ALL)
    print("| videos | few at a time, ms a video | all at once, ms a video | times as fast |\n|---|---|---|---|")
    for batch in options.batches:
        turns = [[seconds(codi, batch, at_once) for at_once in (FEW, ALL)] for _ in range(options.repeat)]
        few, every = (1000 * min(times) / batch for times in zip(*turns))
        print(f"| {batch} | {few:.1f} | {every:.1f} | {every / few:.2f} |", flush=True)


if __name__ == "__main__":
    main()
