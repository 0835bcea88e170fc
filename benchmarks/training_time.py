"""How long `codi train all` of a configuration will take on a machine, from a run of a few steps a phase there.

codi train all --data data/emoji --config FILE --out runs/short --steps 3 && \
    python benchmarks/training_time.py runs/short FILE

Steps are timed with their batches' reading; the encoding of latents, which happens once, is not in the figures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codi_backend.checkpoints.pickles import read_torch
from codi_backend.training.new_model import Settings
from codi_backend.training.recipe import STAGES, phases
from codi_backend.training.run_folder import read_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("config", type=Path)
    given = parser.parse_args()
    config, training = read_config(given.run), Settings.read(given.config).training
    total = 0.0
    print("| phase | steps | batch | s a step | minutes |\n|---|---|---|---|---|")
    for stage in STAGES:
        for name, phase in phases(stage).items():
            if (of_model := phase.of(config)) is None:
                continue
            options = of_model.changed({**training.get(stage, {}), **training.get(name, {})}).options
            state, _ = read_torch(given.run / name / "state.pt")
            step = state["seconds"] / state["step"] * options.batch_size / state["options"]["batch_size"]
            total += step * options.steps
            print(f"| {name} | {options.steps} | {options.batch_size} | {step:.2f} | {step * options.steps / 60:.1f} |")
    print(f"| all | | | | {total / 60:.0f} |")


if __name__ == "__main__":
    main()
