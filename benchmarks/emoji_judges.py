"""How far the judges of the emoji dataset can be relied on: their accuracy on its held-out files.

codi dataset emoji --out data/emoji && python benchmarks/emoji_judges.py data/emoji

With `--model emoji` also on what the model's autoencoders make of these files, which generated results go through, too.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor
from torch.nn import functional as F

import codi_backend as cb
from codi_backend.data.world import SAMPLE_RATE
from codi_backend.evaluation.emoji import JUDGES, measure

IMAGES = ("concept", "style")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", nargs="+", help="whose autoencoders encode and decode the files")
    options = parser.parse_args()
    codi = cb.CoDi.load(options.model) if options.model else None
    print("| judge | labels | files | top 1 | top 5 | chance | decoded, top 1 |\n|---|---|---|---|---|---|---|")
    for name in JUDGES:
        m = measure(options.dataset, name)
        shares = f"{m['top 1']:.1%} | {m['top 5']:.1%} | {m['chance']:.2%}"
        decoded = ""
        if codi:
            change = functools.partial(_decoded, codi, "image" if name in IMAGES else "audio")
            decoded = f"{measure(options.dataset, name, change)['top 1']:.1%}"
        print(f"| {name} | {m['labels']} | {m['examples']} | {shares} | {decoded} |", flush=True)


@torch.inference_mode()
def _decoded(codi: cb.CoDi, name: str, content: Tensor) -> Tensor:
    if name == "image":
        return codi.decode("image", codi.encode("image", content[None]))[0].clamp(0, 1)
    length = round(codi.config.audio_autoencoder.seconds * SAMPLE_RATE)
    padded = F.pad(content, (0, max(0, length - content.shape[1])))[None]
    return codi.decode("audio", codi.encode("audio", padded))[0]


if __name__ == "__main__":
    main()
