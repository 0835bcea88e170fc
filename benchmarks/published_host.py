"""A network of the published size in ComfyUI, in different states of its memory manager.

    python benchmarks/published_host.py [--states=--cpu --states=--lowvram] [--dtype bf16] [--steps 2]

Writes the parts that the workflow "Published CoDi weights in little VRAM" uses, with random weights in `--dtype`, and
runs the workflow from its file in a ComfyUI of its own for each state: on a GPU with --highvram, --normalvram,
--lowvram and --novram, without one with --cpu. Prints the seconds of the prompt with loading, the peaks of the
process's memory and of the GPU's, and whether the files are equal to those of the first state. Needs ComfyUI
(`COMFYUI_PATH`, by default ~/comfy/ComfyUI), 8 GB of disk and about 16 GB of memory.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from host.comfy_host import Http, find_comfyui
from host.workflow_files import api_form

from codi_backend.checkpoints import codi as published
from codi_backend.checkpoints.convert import convert
from codi_backend.checkpoints.native import cut, save_parts
from codi_backend.checkpoints.parts import build
from codi_backend.checkpoints.quantisation import LAYERS

WORKFLOW = "Published CoDi weights in little VRAM"
PARTS = ("prompt_encoders.text", "diffuser.image", "diffuser.audio", "autoencoders.image", "autoencoders.audio")
ON_GPU = ("--highvram", "--normalvram", "--lowvram", "--novram")
HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
SECONDS = 3600.0  # at most


def write_weights(folder: Path, dtype: str) -> float:
    """Write the parts with random weights; gigabytes on disk."""
    config = cut(published.CONFIG, PARTS)
    for part in PARTS:
        torch.manual_seed(0)
        network = build(part, config)
        for layer in network.modules():
            if isinstance(layer, LAYERS):
                torch.nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
        file = folder / f"{part}.safetensors"
        save_parts(file, config, {part: network.state_dict()}, dtype=HALF.get(dtype, torch.float16))
        del network
    if dtype not in HALF:
        plain = sorted(folder.iterdir())
        list(convert(plain, folder, dtype))
        for file in plain:
            file.unlink()
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e9


class Watch(threading.Thread):
    """The largest memory of a server's GPU while it works, and at the end that of its process; in GiB."""

    def __init__(self, server: Http):
        super().__init__(daemon=True)
        self._server, self._done = server, threading.Event()
        self.gpu = self.process = 0.0
        self.start()

    def run(self) -> None:
        while not self._done.wait(0.1):
            device = self._server.get("/system_stats")["devices"][0]
            if device["type"] != "cpu":
                self.gpu = max(self.gpu, (device["vram_total"] - device["vram_free"]) / 2**30)

    def stop(self) -> None:
        self._done.set()
        self.join()
        status = Path(f"/proc/{self._server.process_id}/status").read_text().splitlines()
        self.process = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20


def run(comfyui: Path, state: str, weights: Path, steps: int) -> tuple[float, Watch, dict[str, bytes]]:
    """Seconds, peaks of memory, and the files that the workflow saved."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "models" / "codi").mkdir(parents=True)
        (folder / "models" / "codi" / "CoDi").symlink_to(weights)
        server = Http(comfyui, folder, state=state)
        try:
            prompt = api_form(WORKFLOW)
            for node in prompt.values():
                if node["class_type"] == "KSampler":
                    node["inputs"] |= {"steps": steps, "seed": 0}
            watch = Watch(server)
            begun = time.perf_counter()
            server.run(prompt, SECONDS)
            seconds = time.perf_counter() - begun
            watch.stop()
        finally:
            server.close()
        saved = {path.suffix: path.read_bytes() for path in sorted((folder / "output").rglob("*")) if path.is_file()}
        return seconds, watch, saved
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", action="append", help="ComfyUI's option, as --states=--lowvram; may be repeated")
    parser.add_argument("--dtype", choices=("fp16", "bf16", "fp8", "int8"), default="bf16")
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("There is no ComfyUI: set COMFYUI_PATH to a checkout of it.")
    weights = Path(tempfile.mkdtemp())
    try:
        print(f"{options.dtype}: {write_weights(weights, options.dtype):.2f} GB of weights\n")
        print("| state | s | GiB of the process | GiB of the GPU | files |\n|---|---|---|---|---|")
        first: dict[str, bytes] = {}
        for state in options.states or (ON_GPU if torch.cuda.is_available() else ("--cpu",)):
            seconds, watch, saved = run(comfyui, state, weights, options.steps)
            equal = f"{len(saved)}" if not first else "equal" if saved == first else "DIFFERENT"
            first = first or saved
            print(f"| `{state}` | {seconds:.0f} | {watch.process:.1f} | {watch.gpu:.1f} | {equal} |", flush=True)
    finally:
        shutil.rmtree(weights)


if __name__ == "__main__":
    main()
