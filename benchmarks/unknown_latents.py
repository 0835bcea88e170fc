"""A coupler for two latent spaces that the pack does not know, from saved latents alone: retrieval and training time.

    python benchmarks/unknown_latents.py --out runs/unknown [--autoencoder-steps 400] [--count 6000] [--steps 2000]
        [--threads 1]

Two autoencoders with 16 latent channels and random initial weights are trained on images and audio of Shapes & Chimes.
Their latents of the same scenes are saved as files; `codi train coupler --pairs` reads them. Retrieval is of held-out
pairs among 64. What duplicates allow: scenes of equal colour, shape and count cannot be told apart by their images.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from safetensors.torch import save_file

from codi_backend.data import ShapesAndChimes, sample_scene
from codi_backend.presets import mini
from codi_backend.training.autoencoders import AutoencoderStage
from codi_backend.training.coupler import HELD_OUT
from codi_backend.training.execution import Execution
from codi_backend.training.loop import Options, train
from codi_backend.training.train_coupler import OPTIONS, train_coupler

SEED, CHUNK = 1, 500


def save_latents(name: str, options: argparse.Namespace) -> None:
    """Train an autoencoder with other channels than the built-in one, and save latents of the scenes."""
    folder = options.out / "pairs" / name
    if len(list(folder.glob("*.safetensors"))) * CHUNK >= options.count:
        return
    widened = {
        f"{kind}_autoencoder": dataclasses.replace(getattr(mini.CONFIG, f"{kind}_autoencoder"), latent_channels=16)
        for kind in ("image", "audio")
    }
    stage = AutoencoderStage(dataclasses.replace(mini.CONFIG, **widened), name)
    training = Options(options.autoencoder_steps, 16, learning_rate=1.5e-3, seed=7)
    train(stage, training, options.out, print, Execution())
    folder.mkdir(parents=True, exist_ok=True)
    data = ShapesAndChimes(options.count, (name,), seed=SEED)
    autoencoder = stage.autoencoder.eval()
    for first in range(0, options.count, CHUNK):
        contents = torch.stack([data[i][name] for i in range(first, min(first + CHUNK, options.count))])
        with torch.inference_mode():
            latents = torch.cat([autoencoder.encode(part) for part in contents.split(50)])
        save_file({"latents": latents.contiguous()}, folder / f"{first:06}.safetensors")


def allowed() -> float:
    """The expected retrieval of a critic that knows everything that image and audio share."""
    scenes = [sample_scene(SEED, i) for i in range(HELD_OUT)]
    alike = Counter((scene.colour, scene.shape, scene.count) for scene in scenes)
    return len(alike) / HELD_OUT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--autoencoder-steps", type=int, default=400)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in ("image", "audio"):
        torch.manual_seed(7)
        save_latents(name, options)
    begun = time.monotonic()
    training = dataclasses.replace(OPTIONS, steps=options.steps)
    train_coupler(options.out / "pairs", options.out, axes={"audio": "TF"}, options=training)
    minutes = (time.monotonic() - begun) / 60
    print(f"{options.steps} steps in {minutes:.1f} min; duplicates allow a retrieval of {allowed():.3f}")
    for row in json.loads((options.out / "coupler" / "retrieval.json").read_text())["audio-image"]:
        print(f"  sigma {row['sigma']:g}: {row['accuracy']:.3f}, {row['accuracy'] / allowed():.2f} of that")


if __name__ == "__main__":
    main()
