"""Seconds and peak memory of the published networks, weights by rule: one forward pass of batch 2, or whole runs.

    python benchmarks/forward.py [--cases audio ...] [--dtypes fp32 bf16] [--device cpu] [--repeat 3]
    python benchmarks/forward.py --device cuda --dtypes bf16 fp16 --modes eager compiled --results rows.jsonl
    python benchmarks/forward.py --device cuda --dtypes bf16 --cases video+audio --steps 20 50 --results rows.jsonl

A run (`--steps`) denoises one result with classifier-free guidance, so a step is two passes of batch 1. `compiled` is
`torch.compile`; its first pass is not counted. Every case runs in a process of its own, so that its peak memory is its
own. TFLOP are those of the original network (2 x multiply-adds); this implementation needs fewer, since attention to a
single token needs no queries and keys. With `--results`, rows are kept in a file, and those in it are not measured
again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
SHAPES = {"image": (4, 32, 32), "video": (4, 8, 32, 32), "text": (768,), "audio": (8, 256, 16)}
# Streams, TFLOP, and what the original needed on 2 cores in fp32: seconds at best, and GiB.
CASES = {
    "image": (("image",), 0.3526, 3.1, 7.3),
    "video": (("video",), 4.2297, 25.2, 8.8),
    "text": (("text",), 0.0098, 1.8, 8.2),
    "audio": (("audio",), 0.6329, 9.3, 4.3),
    "image+audio": (("image", "audio"), 1.6984, 24.4, 11.0),
    "video+audio": (("video", "audio"), 7.3718, 65.0, 11.6),
}


NETWORKS = {case: ["image" if name == "video" else name for name in row[0]] for case, row in CASES.items()}


def write_weights(network: str, dtype: str, folder: Path) -> None:
    """Write one network with weights by rule as a checkpoint file."""
    import torch
    from detweights import det_array, is_buffer

    from codi_backend.checkpoints.codi import CONFIG
    from codi_backend.checkpoints.diffuser_names import to_reference
    from codi_backend.checkpoints.native import cut, save_parts
    from codi_backend.models.diffuser import Diffuser

    with torch.device("meta"):
        shapes = Diffuser(CONFIG.diffuser.only({network})).networks[network].state_dict()
    state = {
        key: torch.from_numpy(det_array(f"model.diffusion_model.unet_{network}.{to_reference(key)}", tuple(v.shape)))
        .to(getattr(torch, DTYPES[dtype]))
        for key, v in shapes.items()
        if not is_buffer(key, v)
    }  # fmt: skip
    config = cut(CONFIG, {f"diffuser.{name}" for name in CONFIG.diffuser.networks})
    save_parts(folder / f"{network}_{dtype}.safetensors", config, {f"diffuser.{network}": state})


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Measure one row in this process, from files, as users do: weights that a case does not touch are never read."""
    import torch

    from codi_backend import CoDi
    from codi_backend.modalities import modality
    from codi_backend.peak_memory import forget_peak, peak

    (case,), (dtype,), (mode,), (steps,) = options.cases, options.dtypes, options.modes, options.steps
    device, kind = options.device, getattr(torch, DTYPES[dtype])
    streams = CASES[case][0]
    networks = sorted({modality(name).network for name in streams})
    codi = CoDi.load(
        [options.weights / f"{name}_{dtype}.safetensors" for name in networks],
        only=[f"diffuser.{name}" for name in networks],
        dtype=kind,
    )
    diffuser = codi.to(device).diffuser
    if mode == "compiled":
        diffuser.compile()
    context = torch.nn.functional.normalize(torch.randn(2, 1, 768, device=device), dim=-1).to(kind)
    work = _run(diffuser, streams, context, steps) if steps else _forward(diffuser, streams, context)
    seconds = []
    forget_peak(device)
    for _ in range(options.repeat + (mode == "compiled")):
        begun = time.perf_counter()
        with torch.inference_mode():
            out = work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    assert all(o.isfinite().all() for o in out.values())
    return {"seconds": min(seconds[mode == "compiled" :]), "gib": peak(device) / 2**30}


def _forward(diffuser: Any, streams: Sequence[str], context: Any) -> Callable[[], dict[str, Any]]:
    import torch

    latents = {name: torch.randn(2, *SHAPES[name]).to(context) for name in streams}
    timesteps = torch.tensor([999, 500], device=context.device)
    return lambda: diffuser(latents, timesteps, context)


def _run(diffuser: Any, streams: Sequence[str], context: Any, steps: int) -> Callable[[], dict[str, Any]]:
    from codi_backend.conditioning.prompt import Prompt
    from codi_backend.sampling.noise import stream_noise
    from codi_backend.sampling.samplers import sample
    from codi_backend.sampling.settings import SamplingSettings

    noise = {name: stream_noise((1, *SHAPES[name]), 0, name).to(context) for name in streams}
    return lambda: sample(diffuser, noise, Prompt(context[:1], context[1:]), SamplingSettings(steps=steps))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=list(DTYPES))
    parser.add_argument("--modes", nargs="+", default=["eager"], choices=["eager", "compiled"])
    parser.add_argument("--steps", nargs="+", type=int, default=[0], help="of a whole run (default: 0, one pass)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="folder to keep the weights in (up to 25 GB; default: temporary)")
    parser.add_argument("--results", type=Path, help="file that keeps the rows")
    parser.add_argument("--one", choices=["write", "measure"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one == "write":
        return write_weights(options.cases[0], options.dtypes[0], options.weights)
    if options.one == "measure":
        return print(json.dumps(measure(options)))
    with tempfile.TemporaryDirectory() as temporary:
        options.weights = options.weights or Path(temporary)
        options.weights.mkdir(parents=True, exist_ok=True)
        report(options)


def report(options: argparse.Namespace) -> None:
    """Print the table, row by row."""

    def alone(task: str, case: str, dtype: str, mode: str = "eager", steps: int = 0) -> str:
        command = [sys.executable, __file__, "--one", task, "--cases", case, "--dtypes", dtype, "--modes", mode]
        command += ["--steps", str(steps), "--weights", str(options.weights), "--device", options.device]
        command += ["--repeat", str(options.repeat)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    known = {}
    if options.results and options.results.exists():
        rows = map(json.loads, options.results.read_text().splitlines())
        known = {tuple(row.pop("key")): row for row in rows}
    peak_rate = None
    if options.device == "cuda":
        peak_rate = _bf16_rate()
        print(f"bf16 matrix product on this card: {peak_rate:.0f} TFLOP/s")
    print("| case | dtype | s | GiB | TFLOP | TFLOP/s | original s | original GiB | times as fast |")
    print("|---|---|---|---|---|---|---|---|---|")
    for key in itertools.product(options.cases, options.dtypes, options.modes, options.steps):
        case, dtype, mode, steps = key
        if key not in known:
            for network in NETWORKS[case]:
                if not (options.weights / f"{network}_{dtype}.safetensors").exists():
                    alone("write", network, dtype)
            known[key] = json.loads(alone("measure", *key))
            if options.results:
                with open(options.results, "a") as file:
                    file.write(json.dumps({"key": key} | known[key]) + "\n")
        print(_cells(key, known[key], peak_rate), flush=True)


def _cells(key: tuple[str, str, str, int], row: dict[str, float], peak_rate: float | None) -> str:
    case, dtype, mode, steps = key
    name = case + (f", {steps} steps" if steps else "") + (", compiled" if mode == "compiled" else "")
    tflop, *original = CASES[case][1:]
    tflop *= max(1, steps)
    rate = tflop / row["seconds"]
    share = f" ({rate / peak_rate:.0%} of bf16)" if peak_rate else ""
    cells = [name, dtype, f"{row['seconds']:.2f}", f"{row['gib']:.1f}", f"{tflop:.4g}", f"{rate:.3f}{share}"]
    cells += ["", "", ""] if steps else [*map(str, original), f"{original[0] / row['seconds']:.2f}"]
    return f"| {' | '.join(cells)} |"


def _bf16_rate() -> float:
    import torch

    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(10):
        a @ a
    torch.cuda.synchronize()
    return 10 * 2 * 8192**3 / (time.perf_counter() - begun) / 1e12


if __name__ == "__main__":
    main()
