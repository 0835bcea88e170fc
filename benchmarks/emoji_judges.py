"""How far the judges of the emoji dataset can be relied on: their accuracy on its held-out files.

codi dataset emoji --out data/emoji && python benchmarks/emoji_judges.py data/emoji
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codi_backend.evaluation.emoji import JUDGES, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    dataset = parser.parse_args().dataset
    print("| judge | labels | held-out files | top 1 | top 5 | chance |\n|---|---|---|---|---|---|")
    for kind in JUDGES:
        m = measure(dataset, kind)
        shares = f"{m['top 1']:.1%} | {m['top 5']:.1%} | {m['chance']:.2%}"
        print(f"| {kind} | {m['labels']} | {m['examples']} | {shares} |")


if __name__ == "__main__":
    main()
