"""A thousand prompts in one ComfyUI, and a server that is killed in the middle of its queue.

    python benchmarks/endurance.py [--prompts 1000] [--threads 1]

Needs ComfyUI (`COMFYUI_PATH`, by default ~/comfy/ComfyUI), which runs on the CPU with small random weights. Of every
ten prompts one fails and one is cancelled within a step; every 50 prompts another of two models is loaded. Prints a row
for every 100 prompts: what is alive, the models that are loaded, and the memory of the process.

Then a server gets three prompts of the built-in model, is killed while it denoises the second, is started again, and
gets the second and the third again. Their files must be equal to those of a server that was not killed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from host.comfy_host import Http, InProcess, find_comfyui
from host.graph import Graph, register
from host.test_host_soak import alive, outcome, prompt, resident
from host.tiny_checkpoint import save_tiny

SWITCH, ROW = 50, 100


def soak(comfyui: Path, prompts: int, folder: Path) -> bool:
    """Whether what is alive stayed the same."""
    host = InProcess(comfyui, folder)
    import comfy.model_management as mm

    register(host._nodes.NODE_CLASS_MAPPINGS)
    checkpoints = ("first.safetensors", "second.safetensors")
    for name in checkpoints:
        save_tiny(host.models / name)
    print("| prompts | done | failed | cancelled | tensors | modules | patchers | loaded models | MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    outcomes, rows = Counter(), []
    for number in range(prompts):
        outcomes[outcome(host, prompt(number, checkpoints[number // SWITCH % 2]))] += 1
        if number % ROW == ROW - 1:
            rows.append((*alive().values(), len(mm.current_loaded_models)))
            counts = (number + 1, outcomes["done"], outcomes["failed"], outcomes["cancelled"], *rows[-1])
            print(f"| {' | '.join(map(str, counts))} | {resident() / 1e6:.1f} |", flush=True)
    return len(set(rows)) == 1


def text_to_all(seed: int) -> dict:
    graph = Graph()
    loaded = graph.load()
    text = graph.add("CoDiPromptText", prompt_encoders=loaded[1], text="three red stars")
    latent = graph.sample(loaded, text, graph.empty(loaded, "image", "audio"), seed=seed, steps=30)
    image = graph.add("CoDiDecodeImage", samples=latent, vae=loaded[2])
    graph.add("SaveImage", images=image, filename_prefix=f"{seed}_image")
    sound = graph.add("CoDiDecodeAudio", samples=latent, audio_vae=loaded[3])
    graph.add("SaveAudio", audio=sound, filename_prefix=f"{seed}_sound")
    return graph.prompt


def files(folder: Path, seed: int) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "output").glob(f"{seed}_*"))}


def restart(comfyui: Path, folder: Path) -> bool:
    """Whether the files after a restart are equal to those without one."""
    whole, killed = folder / "whole", folder / "killed"
    for path in (whole, killed):
        path.mkdir()
    server = Http(comfyui, whole)
    for seed in (1, 2, 3):
        server.run(text_to_all(seed))
    server.close()
    server = Http(comfyui, killed)
    names = [server.queue(text_to_all(seed)) for seed in (1, 2, 3)]
    server.wait(names[0])
    time.sleep(1)
    server.kill()
    print(f"killed with {len(files(killed, 2))} files of the second prompt and {len(files(killed, 3))} of the third")
    server = Http(comfyui, killed)
    for seed in (2, 3):
        server.run(text_to_all(seed))
    server.close()
    return all(len(files(whole, seed)) == 2 and files(whole, seed) == files(killed, seed) for seed in (1, 2, 3))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("There is no ComfyUI: set COMFYUI_PATH to a checkout of it.")
    torch.set_num_threads(options.threads)
    folder = Path(tempfile.mkdtemp())
    try:
        equal = restart(comfyui, folder)
        print(f"files after a restart: {'equal' if equal else 'DIFFERENT'}", flush=True)
        (folder / "soak").mkdir()
        steady = soak(comfyui, options.prompts, folder / "soak")
        print(f"tensors, modules, patchers and loaded models: {'no growth' if steady else 'GROWTH'}")
    finally:
        shutil.rmtree(folder)
    return 0 if equal and steady else 1


if __name__ == "__main__":
    sys.exit(main())
