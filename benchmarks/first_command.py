"""Where the time of the README's first command goes, on one thread.

    python benchmarks/first_command.py [--repeat 2]

Denoises text, image, video and audio of the built-in model with its default settings and compares with matrix products
of as many floating-point operations. Then it measures what comes before: importing libraries, and loading the model.
The best of several counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SIDE, PRODUCTS = 2048, 10
START = {
    "importing torch": "import torch",
    "importing torch and diffusers' autoencoder": "import torch; from diffusers import AutoencoderKL",
    "importing the pack": "import codi_backend",
    "importing the pack and loading the model": "import codi_backend as cb; cb.CoDi.load('mini')",
}


def best(measure: Callable[[], object], repeat: int) -> float:
    """Seconds."""
    times = []
    for _ in range(repeat):
        begun = time.perf_counter()
        measure()
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=2)
    repeat = parser.parse_args().repeat
    torch.set_num_threads(1)
    import codi_backend as cb

    codi = cb.CoDi.load("mini")
    prompt, outputs = codi.prompt("text", ["three red stars, slowly"]), ["text", "image", "video", "audio"]

    def denoise() -> None:
        codi.generate_latents(prompt, outputs, seed=0)

    with FlopCounterMode(display=False) as counter:
        denoise()
    operations = counter.get_total_flops()
    factor = torch.randn(SIDE, SIDE)
    rate = 2 * SIDE**3 * PRODUCTS / best(lambda: [factor @ factor for _ in range(PRODUCTS)], repeat + 1)
    seconds = best(denoise, repeat)
    print("| what | s |\n|---|---|")
    print(f"| denoising, {operations / 1e9:.0f} GFLOP | {seconds:.1f} |")
    print(f"| matrix products of as many operations, at {rate / 1e9:.0f} GFLOP/s | {operations / rate:.1f} |")
    print(f"| ratio | {seconds * rate / operations:.1f} |", flush=True)
    for what, script in START.items():
        command = [sys.executable, "-c", script]
        print(f"| {what} | {best(lambda c=command: subprocess.run(c, cwd=ROOT, check=True), repeat):.1f} |", flush=True)


if __name__ == "__main__":
    main()
