"""Two hundred prompts, some of which fail or are cancelled: nothing piles up."""

import gc
import os
from pathlib import Path

import pytest
import torch
from host.comfy_host import Cancelled, ExecutionFailed
from host.graph import Graph, Kept, register

PROMPTS, WARM_UP = 200, 40
# Of every ten prompts.
FAILS, CANCELLED, SHOWN = 3, 7, 5
GROWTH = 20e6  # bytes; 0 as measured, of 160 prompts after the first 40


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def alive() -> dict[str, int]:
    """How many things that weigh something there are."""
    from comfy.model_patcher import ModelPatcher

    gc.collect()
    kinds = {"tensors": torch.Tensor, "modules": torch.nn.Module, "patchers": ModelPatcher}
    counts = dict.fromkeys(kinds, 0)
    for thing in gc.get_objects():
        for name, kind in kinds.items():
            counts[name] += issubclass(type(thing), kind)
    return counts


def prompt(number: int, checkpoint: str = "tiny.safetensors") -> dict:
    """One after another uses every part; nothing but the loader is taken from the cache."""
    graph, kind = Graph(), number % 10
    loaded = graph.load(checkpoint)
    scene = {"shape": "star", "count": 1, "tempo": "slow", "start": 0.3, "seed": number}
    scene = graph.add("CoDiExampleScene", colour="red", **scene)
    content = ("image", "video", "audio", "text")[number % 4]
    prompts = graph.add(f"CoDiPrompt{content.capitalize()}", prompt_encoders=loaded[1], **{content: scene[number % 4]})
    width = 72 if kind == FAILS else 32
    latent = graph.empty(loaded, "image", "video", "audio", "text", width=width, height=32, frames=2, seconds=0.32)
    model = graph.add("TestCancelWhileSampling", model=loaded) if kind == CANCELLED else loaded
    latent = graph.sample(model, prompts, latent, seed=number)
    image = graph.add("CoDiDecodeImage", samples=latent, vae=loaded[2])
    audio = graph.add("CoDiDecodeAudio", samples=latent, audio_vae=loaded[3])
    graph.keep("text", graph.add("CoDiDecodeText", samples=latent, text_vae=loaded[4]))
    graph.keep("video", graph.add("CoDiDecodeVideo", samples=latent, vae=loaded[2], frame_rate=0.0, audio=audio))
    if kind == SHOWN:
        graph.add("PreviewImage", images=image)
    return graph.prompt


def outcome(host, graph: dict) -> str:
    """Run a prompt of this kind: "done", "failed" or "cancelled"."""
    try:
        host.run(graph)
    except ExecutionFailed as failure:
        assert str(failure).startswith("width: 72 pixels"), failure
        return "failed"
    except Cancelled:
        return "cancelled"
    return "done"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's account of memory")
def test_nothing_piles_up(host):
    import comfy.model_management as mm

    host.forget()
    register(host._nodes.NODE_CLASS_MAPPINGS)
    before = {path for path in host.temp.rglob("*") if path.is_file()}
    outcomes, things, loaded, memory = [], [], [], []
    for number in range(PROMPTS):
        outcomes.append(outcome(host, prompt(number)))
        if number % WARM_UP == WARM_UP - 1:  # always after a prompt of the same kind
            things.append(alive())
            loaded.append(sorted(type(entry.model.model).__name__ for entry in mm.current_loaded_models))
            memory.append(resident())
    assert [outcomes.count(kind) for kind in ("done", "failed", "cancelled")] == [160, 20, 20]
    print(f"{things[-1]}; {loaded[-1]}; grew by {(memory[-1] - memory[0]) / 1e6:.1f} MB")
    assert all(now == things[0] for now in things), things
    assert all(now == loaded[0] for now in loaded), loaded
    # All parts, once each: those that encode and decode stay loaded beside the diffuser while there is room.
    assert len(loaded[0]) == len(set(loaded[0])) == 7, loaded[0]
    assert memory[-1] - memory[0] < GROWTH, memory
    left = {path for path in host.temp.rglob("*") if path.is_file()} - before
    assert len(left) == PROMPTS // 10  # the images that Preview Image shows, and nothing of ours
    Kept.values.clear()
    host.forget()
