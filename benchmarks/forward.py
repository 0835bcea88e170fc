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
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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


def measure(case: str, dtype: str, device: str, repeat: int) -> dict[str, float]:
    """Run one case in this process."""
    import torch

    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from detweights import det_array, is_buffer

    from codi_backend.diffuser import Diffuser
    from codi_backend.diffuser.names import to_reference
    from codi_backend.modality import modality
    from codi_backend.published import CONFIG

    streams = CASES[case][0]
    networks = {modality(name).network for name in streams}
    config = CONFIG.diffuser.only(networks)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    with torch.device("meta"):
        diffuser = Diffuser(config, dtype=kind)
    diffuser.to_empty(device=device)
    for network, module in diffuser.networks.items():
        for key, value in module.state_dict().items():
            if not is_buffer(key, value):
                name = f"model.diffusion_model.unet_{network}.{to_reference(key)}"
                value.copy_(torch.from_numpy(det_array(name, tuple(value.shape))))
    latents = {name: torch.randn(2, *SHAPES[name], device=device, dtype=kind) for name in streams}
    timesteps = torch.tensor([999, 500], device=device)
    context = torch.nn.functional.normalize(torch.randn(2, 1, 768, device=device), dim=-1).to(kind)
    seconds = []
    for _ in range(repeat):
        begun = time.perf_counter()
        with torch.inference_mode():
            out = diffuser(latents, timesteps, context)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    assert all(o.isfinite().all() for o in out.values())
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": min(seconds), "gib": peak / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.cases[0], options.dtypes[0], options.device, options.repeat)))
        return
    peak_rate = None
    if options.device == "cuda":
        peak_rate = _bf16_rate()
        print(f"bf16 matrix product on this card: {peak_rate:.0f} TFLOP/s")
    print("| case | dtype | s | GiB | TFLOP | TFLOP/s | original s | original GiB | times as fast |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in options.cases:
        for dtype in options.dtypes:
            command = [sys.executable, __file__, "--one", "--cases", case, "--dtypes", dtype]
            command += ["--device", options.device, "--repeat", str(options.repeat)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
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
