"""Seconds and peak memory of one forward pass of the published networks, batch 2, weights by rule.

    python benchmarks/forward.py [--cases audio ...] [--dtypes fp32 bf16] [--device cpu] [--repeat 3]

Every case runs in a process of its own, so that its peak memory is its own. TFLOP are those of the original network
(2 x multiply-adds); this implementation needs fewer, since attention to a single token needs no queries and keys.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def measure(case: str, dtype: str, device: str, repeat: int, folder: Path) -> dict[str, float]:
    """Run one case in this process, from files, as users do: weights that a case does not touch are never read."""
    import torch

    from codi_backend import CoDi
    from codi_backend.modalities import modality

    streams = CASES[case][0]
    networks = sorted({modality(name).network for name in streams})
    kind = getattr(torch, DTYPES[dtype])
    codi = CoDi.load(
        [folder / f"{name}_{dtype}.safetensors" for name in networks],
        only=[f"diffuser.{name}" for name in networks],
        dtype=kind,
    )
    diffuser = codi.to(device).diffuser
    latents = {name: torch.randn(2, *SHAPES[name], device=device, dtype=kind) for name in streams}
    timesteps = torch.tensor([999, 500], device=device)
    context = torch.nn.functional.normalize(torch.randn(2, 1, 768, device=device), dim=-1).to(kind)
    seconds = []
    _forget_peak(device)
    for _ in range(repeat):
        begun = time.perf_counter()
        with torch.inference_mode():
            out = diffuser(latents, timesteps, context)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    assert all(o.isfinite().all() for o in out.values())
    return {"seconds": min(seconds), "gib": _peak(device) / 2**30}


def _forget_peak(device: str) -> None:
    """Making weights by rule takes more memory than holding them: count from here on, where the system can."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif (file := Path("/proc/self/clear_refs")).exists():
        file.write_text("5")


def _peak(device: str) -> int:
    """Bytes held at most: the whole process on a CPU, PyTorch's allocator on a GPU."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if (file := Path("/proc/self/status")).exists():
        return next(int(line.split()[1]) * 1024 for line in file.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=list(DTYPES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="folder to keep the weights in (up to 25 GB; default: temporary)")
    parser.add_argument("--one", choices=["write", "measure"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one == "write":
        return write_weights(options.cases[0], options.dtypes[0], options.weights)
    if options.one == "measure":
        row = measure(options.cases[0], options.dtypes[0], options.device, options.repeat, options.weights)
        return print(json.dumps(row))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.weights or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report(options, folder)


def report(options: argparse.Namespace, folder: Path) -> None:
    """Print the table, row by row."""

    def alone(task: str, case: str, dtype: str) -> str:
        command = [sys.executable, __file__, "--one", task, "--cases", case, "--dtypes", dtype]
        command += ["--weights", str(folder), "--device", options.device, "--repeat", str(options.repeat)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    peak_rate = None
    if options.device == "cuda":
        peak_rate = _bf16_rate()
        print(f"bf16 matrix product on this card: {peak_rate:.0f} TFLOP/s")
    print("| case | dtype | s | GiB | TFLOP | TFLOP/s | original s | original GiB | times as fast |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in options.cases:
        for dtype in options.dtypes:
            for network in NETWORKS[case]:
                if not (folder / f"{network}_{dtype}.safetensors").exists():
                    alone("write", network, dtype)
            row = json.loads(alone("measure", case, dtype))
            _, tflop, seconds, gib = CASES[case]
            rate = tflop / row["seconds"]
            share = f" ({rate / peak_rate:.0%} of bf16)" if peak_rate else ""
            cells = [
                case,
                dtype,
                f"{row['seconds']:.2f}",
                f"{row['gib']:.1f}",
                tflop,
                f"{rate:.3f}{share}",
                seconds,
                gib,
            ]
            print(f"| {' | '.join(map(str, cells))} | {seconds / row['seconds']:.2f} |", flush=True)


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
