"""How far streams of the built-in model agree on what the prompt leaves out, by the way in which they are coupled.

    python benchmarks/coupling.py [--streams image audio] [--held image] [--partial] [--count 200] [--coupler FILE]
        [--methods independent environment coupler connectors] [--weight 5] [--steps 60] [--eta 1.5] [--threads 1]

Every stream is denoised by its own network with alignment off, as if each were a model of its own; "connectors" is the
model's latent alignment, without best-of-N. Prompts are empty, or with --partial they leave out half of the attributes.
Shares have 95% intervals. Readable: the judge finds colour, shape and count. Stated: attributes of partial prompts that
a stream follows. Seconds are of denoising, for each result and step, one method after the other.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

import codi_backend as cb
from codi_backend.checkpoints.coupler_file import load_coupler
from codi_backend.cli.devices import place
from codi_backend.data.world import SAMPLE_RATE, sample_scene
from codi_backend.evaluation.agreement import has_attribute
from codi_backend.evaluation.figures import Figure, mean, share
from codi_backend.evaluation.prompts import Empty, Partial, render
from codi_backend.evaluation.runs import SCENE_SEED, judge
from codi_backend.modalities import MODALITIES, latent_shape, scale_factor
from codi_backend.models.coupler import Coupler
from codi_backend.models.noise_schedule import alphas_cumprod
from codi_backend.presets import mini
from codi_backend.sampling.couple import CoupledStream, couple, karras_sigmas
from codi_backend.sampling.noise_levels import Denoiser, ddpm_denoiser

METHODS = ("independent", "environment", "coupler", "connectors")
ATTRIBUTES = ("colour", "shape", "count")
BATCH = 40


def denoiser(codi: cb.CoDi, name: str, prompt: cb.Prompt) -> Denoiser:
    """One network of the model by itself, with classifier-free guidance."""

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        when = timestep.expand(len(x))
        guided = codi.diffuser({name: x}, when, prompt.embedding, alignment="none")[name]
        if torch.equal(prompt.embedding, prompt.unconditional):
            return guided
        unguided = codi.diffuser({name: x}, when, prompt.unconditional, alignment="none")[name]
        return torch.lerp(unguided, guided, codi.config.guidance)

    return ddpm_denoiser(predict, alphas_cumprod())


def generate(
    codi: cb.CoDi, method: str, coupler: Any, prompt: cb.Prompt, held: dict[str, Tensor], seed: int, options: Any
) -> tuple[dict[str, Tensor], float]:
    """Latents of the streams that are not held, and the seconds of denoising."""
    outputs = [name for name in options.streams if name not in held]
    begun = time.perf_counter()
    if method == "connectors":
        settings = {"steps": options.steps, "sampler": "dpmpp_2m_sde", "candidates": 1}
        latents = codi.generate_latents(prompt, outputs, seed=seed, held=held, **settings)
    else:
        streams = {
            name: CoupledStream(None if name in held else denoiser(codi, name, prompt), scale_factor(codi.config, name))
            for name in options.streams
        }
        shapes = {name: (len(prompt.embedding), *latent_shape(codi.config, name)) for name in outputs}
        sampling = {"sigmas": karras_sigmas(options.steps), "eta": options.eta, "device": options.device}
        latents = couple(streams, shapes, coupler, weight=options.weight, held=held, seed=seed, **sampling)
    return latents, time.perf_counter() - begun


def results(codi: cb.CoDi, method: str, coupler: Any, options: Any) -> tuple[list[dict[str, Any]], float]:
    """Judged results, each with its scene and what its prompt leaves out, and seconds a result and step."""
    prompts = Partial() if options.partial else Empty()
    records, seconds = [], 0.0
    for first in range(0, options.count, BATCH):
        scenes = [sample_scene(SCENE_SEED, i) for i in range(first, min(first + BATCH, options.count))]
        prompt = prompts.encode(codi, scenes, first)
        held = {}
        for name in options.held:
            content = render(name, scenes).to(options.device)
            held[name] = codi.encode(name, content, SAMPLE_RATE if name == "audio" else None).clone()
        latents, spent = generate(codi, method, coupler, prompt, held, options.seed + first, options)
        seconds += spent
        contents = {name: codi.decode(name, z) for name, z in latents.items()}
        for i, scene in enumerate(scenes):
            record: dict[str, Any] = {name: judge(codi, name, content[i]) for name, content in contents.items()}
            known = {a: getattr(scene, a) for a in ATTRIBUTES} | {"onsets": scene.onsets}
            record |= {name: known for name in held}
            left_out = Partial.left_out(first + i) if options.partial else ATTRIBUTES
            records.append({"streams": record, "scene": known, "left_out": left_out})
        print(f"{method}: {len(records)} of {options.count}", file=sys.stderr, flush=True)
    return records, seconds / options.count / options.steps


def figures(method: str, records: Sequence[dict[str, Any]], outputs: Sequence[str]) -> list[Figure]:
    found: list[Figure] = []
    for attribute in ATTRIBUTES:
        values = [[s[attribute] for s in r["streams"].values()] for r in records if attribute in r["left_out"]]
        found += share(method, f"{attribute} alike", [None not in v and len(set(v)) == 1 for v in values])
    for name in outputs:
        readable = [None not in (r["streams"][name][a] for a in ATTRIBUTES) for r in records]
        found += share(method, f"{name} readable", readable)
    stated = defaultdict(list)
    for r, name, attribute in itertools.product(records, outputs, ATTRIBUTES):
        if attribute not in r["left_out"] and has_attribute(name, attribute, r["streams"][name]["count"]):
            stated[name].append(r["streams"][name][attribute] == r["scene"][attribute])
    for name, right in stated.items():
        found += share(method, f"{name} as stated", right)
    timed = [name for name in ("video", "audio") if name in records[0]["streams"]]
    if len(timed) == 2:
        onsets = [[r["streams"][name]["onsets"] for name in timed] for r in records]
        found += mean(method, "first onsets apart", [abs(a[0] - b[0]) for a, b in onsets if a and b])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", nargs="+", default=["image", "audio"], choices=list(MODALITIES))
    parser.add_argument("--held", nargs="+", default=[], choices=list(MODALITIES))
    parser.add_argument("--partial", action="store_true")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--coupler", type=Path, default=mini.COUPLER)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--weight", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--eta", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    codi = place(cb.CoDi.load("mini"), options.device)
    scales = {name: scale_factor(codi.config, name) for name in MODALITIES}
    outputs = [name for name in options.streams if name not in options.held]
    for method in options.methods:
        coupler = None
        if method == "environment":
            coupler = Coupler.from_codi(codi.diffuser, scales)
        elif method == "coupler":
            coupler = load_coupler(options.coupler).to(options.device)
        with torch.inference_mode():
            records, seconds = results(codi, method, coupler, options)
        print(f"{method}, {len(records)} results, {1000 * seconds:.1f} ms a result and step")
        for f in figures(method, records, outputs):
            percent = f.unit == "share"
            low, value, high = (f"{100 * v:.1f}" if percent else f"{v:.3f} s" for v in (f.low, f.value, f.high))
            print(f"  {f.column:20} {value} ({low} to {high}; {f.n})", flush=True)


if __name__ == "__main__":
    main()
