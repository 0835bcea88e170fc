"""Every set of prompts to every set of outputs, on the built-in model, in real graphs."""

from itertools import combinations

import pytest
import torch
from host.graph import STREAMS, Graph, Kept, register

SETS = [chosen for size in range(1, 5) for chosen in combinations(STREAMS, size)]
# Small, since what is tested does not depend on the size.
SIZES = {"width": 32, "height": 32, "frames": 2, "seconds": 0.32}
RESULTS = {
    "image": (32, 32, 3),
    "video": (2, 32, 32, 3),
    "audio": (1, 5120),
}
SAMPLING = {"seed": 7, "steps": 2, "cfg": 3.5, "sampler_name": "dpmpp_2m", "scheduler": "sgm_uniform"}
PROMPTS = {"image": 0, "video": 1, "audio": 2, "text": 3}  # outputs of CoDi Example Scene


@pytest.fixture(scope="module", autouse=True)
def nodes(host):
    register(host._nodes.NODE_CLASS_MAPPINGS)
    yield
    Kept.values.clear()
    host.forget()


def encoded(graph, loaded):
    """Positive and unconditional of a prompt of every kind: their nodes, by kind."""
    prompts = {}
    for number, (kind, output) in enumerate(PROMPTS.items()):
        # Different scenes, so that every prompt counts.
        scene = graph.add(
            "CoDiExampleScene",
            colour=("red", "green", "blue", "yellow")[number],
            shape="star",
            count=number + 1,
            tempo="slow",
            start=0.3,
            seed=number,
        )
        name = f"CoDiPrompt{kind.capitalize()}"
        prompts[kind] = graph.add(name, prompt_encoders=loaded[1], **{kind: scene[output]})
    return prompts


def mixed(graph, prompts, chosen, output):
    """CoDi Interpolate over the chosen prompts; a single one as it is."""
    if len(chosen) == 1:
        return prompts[chosen[0]][output]
    inputs = {f"prompts.prompt_{i}": prompts[kind][output] for i, kind in enumerate(chosen, start=1)}
    inputs |= {f"prompts.weight_{i}": 1.0 for i in range(1, len(chosen) + 1)}
    return graph.add("CoDiInterpolatePrompts", method="linear", prompts=str(len(chosen)), **inputs)[0]


def decoded(graph, loaded, latent, outputs):
    graph.keep("latent", latent)
    if "image" in outputs:
        graph.keep("image", graph.add("CoDiDecodeImage", samples=latent, vae=loaded[2]))
    audio = graph.add("CoDiDecodeAudio", samples=latent, audio_vae=loaded[3]) if "audio" in outputs else None
    if audio:
        graph.keep("audio", audio)
    if "video" in outputs:
        track = {"audio": audio} if audio else {}
        video = graph.add("CoDiDecodeVideo", samples=latent, vae=loaded[2], frame_rate=0.0, **track)
        graph.keep("video", video)
        graph.keep("frames", video[1])
    if "text" in outputs:
        graph.keep("text", graph.add("CoDiDecodeText", samples=latent, text_vae=loaded[4]))


def prompts_to(chosen, outputs, run):
    """The graph that a user would wire for one combination; `run` only makes the executor run it again."""
    graph = Graph()
    loaded = graph.load()
    prompts = encoded(graph, loaded)
    positive, negative = (mixed(graph, prompts, chosen, output) for output in (0, 1))
    # An input that the node does not have, but that its outputs are cached by.
    latent = graph.empty(loaded, *outputs, **SIZES, run=run)
    inputs = {"model": loaded, "positive": positive, "negative": negative, "latent_image": latent, "denoise": 1.0}
    decoded(graph, loaded, graph.add("KSampler", **SAMPLING, **inputs), outputs)
    return graph.prompt


def results(host, prompt, outputs):
    """Run, check what came out, and give it as tensors and texts by name."""
    Kept.values.clear()
    host.run(prompt)
    ran = {prompt[name]["class_type"] for name in host.executed}
    assert "KSampler" in ran, "the executor took the result from its cache"
    kept = Kept.values
    (latent,) = kept["latent"]
    streams = host.module("nodes.runtime.latent_packing").split(latent["samples"])
    found = {f"latent {name}": stream for name, stream in zip(outputs, streams, strict=True)}
    assert set(kept) == {"latent", *outputs} | ({"frames"} if "video" in outputs else set())
    if "image" in outputs:
        (found["image"],) = kept["image"]
    if "audio" in outputs:
        (audio,) = kept["audio"]
        assert audio["sample_rate"] == 16000
        found["audio"] = audio["waveform"]
    if "video" in outputs:
        found["video"] = torch.stack(kept["frames"])
        for video in kept["video"]:
            parts = video.get_components()
            assert float(parts.frame_rate) == 6.25 and (parts.audio is not None) == ("audio" in outputs)
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32 and tensor.isfinite().all(), name
        assert tensor.shape[0] == 1 and tensor.shape[1:] == RESULTS.get(name, tensor.shape[1:]), name
    for name in {"image", "video"} & set(found):
        assert found[name].min() >= 0 and found[name].max() <= 1
    if "text" in outputs:
        assert len(kept["text"]) == 1 and all(isinstance(text, str) for text in kept["text"])
        found["text"] = list(kept["text"])
    return found


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) if torch.is_tensor(one[name]) else one[name] == other[name] for name in one
    )


@pytest.mark.parametrize(
    "outputs",
    [pytest.param(chosen, marks=[pytest.mark.audio] if chosen == ("audio",) else []) for chosen in SETS],
    ids="+".join,
)
def test_all_sets_of_prompts_to(host, outputs):
    first = {chosen: results(host, prompts_to(chosen, outputs, 1), outputs) for chosen in SETS}
    # In another order, so that nothing that a run leaves behind may matter.
    for chosen in reversed(SETS):
        assert same(first[chosen], results(host, prompts_to(chosen, outputs, 2), outputs)), chosen
    # All begin with the same noise, so what differs is due to the prompts.
    for name in (f"latent {output}" for output in outputs):
        rows = torch.cat([first[chosen][name].flatten(1) for chosen in SETS])
        distances = torch.cdist(rows, rows) + torch.eye(len(SETS))
        assert distances.min() > 1e-4, f"two sets of prompts gave the same {name}"
