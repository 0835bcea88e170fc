"""Agreement of the built-in model's networks as separate MODELs in ComfyUI, coupled by the built-in coupler.

    python benchmarks/coupling_comfyui.py [--streams image audio] [--held image] [--count 200] [--weight 5] [--steps 60]
        [--eta 1.5]

Every stream has a loader, an empty prompt and a CFGGuider of its own; CoDi Couple Guiders and SamplerCustomAdvanced run
them. A held image shows another scene for each result. Needs ComfyUI (`COMFYUI_PATH`, by default ~/comfy/ComfyUI), on
the CPU. Shares have 95% intervals. Readable: the judge finds colour, shape and count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from host.comfy_host import InProcess, find_comfyui
from host.graph import Give, Graph, Kept, register

from codi_backend.data.world import sample_scene
from codi_backend.evaluation.figures import share
from codi_backend.evaluation.judges import judge_audio, judge_image, judge_text
from codi_backend.evaluation.prompts import render
from codi_backend.evaluation.runs import SCENE_SEED

ATTRIBUTES = ("colour", "shape", "count")
BATCH = 40


def prompt(streams: list[str], size: int, seed: int, options: argparse.Namespace) -> dict:
    """The graph of a batch; the images to hold are what `Give` has."""
    graph, guiders, latents, loaders = Graph(), {}, {}, {}
    off = dict.fromkeys(("image", "video", "audio", "text"), False)
    for number, stream in enumerate(streams, 1):
        parts = {"image_and_video": stream == "image", "audio": stream == "audio", "text": stream == "text"}
        loaders[stream] = loaded = graph.add("CoDiLoadModel", checkpoint="mini (built in)", **parts)
        text = graph.add("CoDiPromptText", prompt_encoders=loaded[1], text="")
        guiders[f"guiders.guider_{number}"] = graph.add(
            "CFGGuider", model=loaded, positive=text[0], negative=text[1], cfg=1.0
        )
        if stream in options.held:
            images = graph.add("TestGive", name=stream)
            latents[f"latents.latent_{number}"] = graph.add("CoDiEncodeImage", image=images, vae=loaded[2])
        else:
            latents[f"latents.latent_{number}"] = graph.empty(loaded, stream, batch_size=size)
    latent = graph.add("CoDiJoinLatents", keep_order=True, **latents)
    if options.held:
        held = ", ".join(str(streams.index(name) + 1) for name in options.held)
        latent = graph.add("CoDiHoldStreams", samples=latent, streams=held, **off)
    coupler = graph.add("CoDiLoadCoupler", coupler="mini (built in)")
    settings = {"weight": options.weight, "start_percent": 0.0, "end_percent": 1.0, "lead": 1}
    sampler = {"solver_type": "midpoint", "eta": options.eta, "s_noise": 1.0, "noise_device": "cpu"}
    sampled = graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=seed),
        guider=graph.add("CoDiCoupleGuiders", coupler=coupler, **guiders, **settings),
        sampler=graph.add("SamplerDPMPP_2M_SDE", **sampler),
        sigmas=graph.add("KarrasScheduler", steps=options.steps, sigma_max=14.6, sigma_min=0.03, rho=7.0),
        latent_image=latent,
    )
    apart = graph.add("CoDiSplitLatent", samples=sampled)
    decode = {"image": ("VAEDecode", "vae", 2), "audio": ("CoDiDecodeAudio", "audio_vae", 3),
              "text": ("CoDiDecodeText", "text_vae", 4)}  # fmt: skip
    for number, stream in enumerate(streams):
        kind, socket, output = decode[stream]
        given = {"samples": apart[4 + number], socket: loaders[stream][output]}
        graph.keep(stream, graph.add(kind, **given))
    return graph.prompt


def judged(stream: str, kept: list[Any]) -> list[Any]:
    if stream == "image":
        return [judge_image(image.movedim(-1, 0)) for image in kept[0]]
    if stream == "audio":
        return [judge_audio(wave, kept[0]["sample_rate"]) for wave in kept[0]["waveform"]]
    return [judge_text(text) for text in kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", nargs="+", default=["image", "audio"], choices=["image", "audio", "text"])
    parser.add_argument("--held", nargs="*", default=[], choices=["image"])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--weight", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--eta", type=float, default=1.5)
    options = parser.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("There is no ComfyUI: set COMFYUI_PATH to a checkout of it.")
    results, begun = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        host = InProcess(comfyui, Path(folder))
        register(host._nodes.NODE_CLASS_MAPPINGS)
        for first in range(0, options.count, BATCH):
            size = min(BATCH, options.count - first)
            scenes = [sample_scene(SCENE_SEED, i) for i in range(first, first + size)]
            Give.values["image"] = render("image", scenes).movedim(1, -1)
            host.run(prompt(options.streams, size, first, options))
            results += zip(*(judged(stream, Kept.values[stream]) for stream in options.streams), strict=True)
            print(f"{len(results)} of {options.count}", file=sys.stderr, flush=True)
    print(f"{len(results)} results in {time.monotonic() - begun:.0f} s")
    rows = []
    for attribute in ATTRIBUTES:
        values = [[getattr(one, attribute) for one in result] for result in results]
        rows += share("", f"{attribute} alike", [None not in v and len(set(v)) == 1 for v in values])
    for i, stream in enumerate(options.streams):
        readable = [all(getattr(result[i], a) is not None for a in ATTRIBUTES) for result in results]
        rows += share("", f"{stream} readable", readable)
    for row in rows:
        print(f"  {row.column:20} {100 * row.value:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f}; {row.n})")


if __name__ == "__main__":
    main()
