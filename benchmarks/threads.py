"""What the wait policy of OpenMP threads costs, on an idle machine and on a busy one.

    python benchmarks/threads.py [--repeat 3] [--limit 300]

Denoises text, image, video and audio of the built-in model in 4 steps with 2 candidates, each time in a process of its
own: with one thread, and with one thread for each core, which wait actively (`OMP_WAIT_POLICY` is not set, as PyTorch
has it) or passively (as `codi` sets it). The busy machine has another process with one thread for each core, which
multiplies matrices. Prints the best seconds, and their ratio to those of one thread beside them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
POLICIES = {"1 thread": (1, None), f"{CORES} threads": (CORES, None), f"{CORES} threads, passive": (CORES, "PASSIVE")}
DENOISE = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
import codi_backend as cb
codi = cb.CoDi.load("mini")
prompt, outputs = codi.prompt("text", ["three red stars"]), ["text", "image", "video", "audio"]
codi.generate_latents(prompt, outputs, steps=1, candidates=1)
begun = time.perf_counter()
codi.generate_latents(prompt, outputs, steps=4, candidates=2)
print(time.perf_counter() - begun)
"""
OTHER_JOB = """
import torch
a = torch.randn(1000, 1000)
print("begun", flush=True)
while True:
    a @ a
"""


def run(script: str, threads: int, policy: str | None) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, "-c", script, str(threads)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@contextmanager
def busy(yes: bool):
    other = run(OTHER_JOB, CORES, None) if yes else None
    if other is not None:
        other.stdout.readline()
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def seconds(policy: str, limit: float) -> float:
    """Infinite beyond the limit."""
    child = run(DENOISE, *POLICIES[policy])
    try:
        return float(child.communicate(timeout=limit)[0])
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a run is given up")
    options = parser.parse_args()
    print("| machine | threads | s | times one thread |\n|---|---|---|---|")
    for is_busy in (False, True):
        best = dict.fromkeys(POLICIES, float("inf"))
        with busy(is_busy):
            for round in range(options.repeat):
                for policy in POLICIES:
                    if round == 0 or best[policy] < float("inf"):
                        best[policy] = min(best[policy], seconds(policy, options.limit))
        for policy, time in best.items():
            shown = f"{time:.2f} | {time / best['1 thread']:.2f}" if time < float("inf") else f"> {options.limit:g} |"
            print(f"| {'busy' if is_busy else 'idle'} | {policy} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
