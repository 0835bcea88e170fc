"""Memory that the pack's parts ask ComfyUI for, and what they take, on the built-in model.

    python benchmarks/host_memory.py

Needs ComfyUI (`COMFYUI_PATH`, by default ~/comfy/ComfyUI), which runs on the CPU. What is taken is all that lives at
once beyond the weights. Prints a Markdown table.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]


def parts(host, load) -> list[tuple[str, float, float]]:
    """Name, bytes asked for and bytes taken of every encoder and autoencoder."""
    import comfy.model_management as mm
    from host.test_host_parts import RUNS, peak

    asked, load_models = [], mm.load_models_gpu

    def recorded(models, memory_required=0, **options):
        asked.append(memory_required)
        return load_models(models, memory_required=memory_required, **options)

    mm.load_models_gpu = recorded
    try:
        rows = []
        for name, (number, content, work) in RUNS.items():
            part = load()[number]
            work(part, content)  # reads the weights
            taken = peak(lambda part=part, work=work, content=content: work(part, content))
            rows.append((name, asked[-1], taken))
        return rows
    finally:
        mm.load_models_gpu = load_models


def diffusers(host, load) -> list[tuple[str, float, float]]:
    """The same of one prediction of each set of streams, two samples at a time."""
    from comfy.ldm.modules.attention import attention_pytorch
    from comfy.patcher_extension import WrappersMP
    from host.graph import STREAMS
    from host.test_host_memory import Peak

    # As on a GPU: what ComfyUI takes on a CPU holds all weights of an attention at once.
    host.module("nodes.runtime.model").optimized_attention = attention_pytorch
    model, encoders, *_ = load()
    prompts = host.node("CoDiPromptText").execute(prompt_encoders=encoders, text="three red stars").args
    rows = []
    for count in range(1, 5):
        for streams in combinations(STREAMS, count):
            sizes = {"width": 0, "height": 0, "frames": 0, "seconds": 0.0, "batch_size": 2}
            chosen = {name: name in streams for name in STREAMS}
            (latent,) = host.node("CoDiEmptyLatent").execute(model=model, **chosen, **sizes).args
            elements = sum(stream[0].numel() for stream in latent["samples"].unbind()) if count > 1 else 0
            found = []

            def measure(executor, x, timesteps, *arguments, elements=elements, found=found, **named):
                shape = [len(timesteps), 1, elements] if elements else list(x.shape)
                with Peak() as peak:
                    result = executor(x, timesteps, *arguments, **named)
                found.append((model.model.memory_required(shape), peak.most))
                return result

            watched = model.clone()
            watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "measure", measure)
            host.node("KSampler")().sample(watched, 0, 1, 3.5, "euler", "normal", *prompts, latent)
            rows.append((" + ".join(streams), *max(found, key=lambda pair: pair[1])))
    return rows


def main() -> None:
    import torch
    from host.comfy_host import InProcess, find_comfyui

    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("There is no ComfyUI: set COMFYUI_PATH to a checkout of it.")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        host = InProcess(comfyui, Path(folder))

        def load():
            return host.node("CoDiLoadModel").execute(checkpoint="mini (built in)").args

        rows = [*parts(host, load), *diffusers(host, load)]
    print("| what | asked for, MB | taken, MB | asked / taken |\n|---|---|---|---|")
    for name, asked, taken in rows:
        print(f"| {name} | {asked / 1e6:.2f} | {taken / 1e6:.2f} | {asked / taken:.2f} |")


if __name__ == "__main__":
    main()
