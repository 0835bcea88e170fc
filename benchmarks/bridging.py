"""How well the prompt encoders of a run agree on concepts of the emoji dataset, before any diffuser is trained.

    python benchmarks/bridging.py runs/emoji data/emoji [--count 100]

An image or a spoken name retrieves the caption of its kind with the most similar embedding. Prints the share whose
caption has the same concept, for rows of the training and for held-out ones (styles and voices).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from codi_backend.data.world import SAMPLE_RATE
from codi_backend.evaluation.emoji.manifest import read_file, rows_of
from codi_backend.pipeline import CoDi
from codi_backend.training.run_folder import load_parts, read_config

KINDS = {"image": "image", "speech": "audio"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--count", type=int, default=100, help="rows of each kind and split, at most")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # captions that are held out may have words of their own
    codi = CoDi(read_config(options.run))
    load_parts(codi, options.run, *(f"prompt_encoders.{name}" for name in ("text", *KINDS.values())))
    print("| prompt | rows | concepts | same concept |\n|---|---|---|---|")
    for kind, modality in KINDS.items():
        splits = {split: rows_of(options.dataset, (kind,), split) for split in ("train", "test")}
        every = [row for rows in splits.values() for row in rows]
        texts = codi.prompt("text", [row["text"] for row in every]).embedding[:, 0]
        for split, rows in splits.items():
            chosen = np.random.default_rng(0).permutation(len(rows))[: options.count]
            some = [rows[i] for i in chosen]
            contents = torch.stack([read_file(options.dataset, row, modality) for row in some])
            given = codi.prompt(modality, contents, SAMPLE_RATE if modality == "audio" else None).embedding[:, 0]
            nearest = (given @ texts.T).argmax(1).tolist()
            right = np.mean([every[i]["concept"] == row["concept"] for i, row in zip(nearest, some)])
            concepts = len({row["concept"] for row in every})
            print(f"| {kind}, {split} | {len(some)} | {concepts} | {right:.1%} |", flush=True)


if __name__ == "__main__":
    main()
