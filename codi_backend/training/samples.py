"""Samples of a diffusion stage during training, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..media.write import write_result
from ..pipeline import CoDi

_SAMPLING = {"steps": 10, "sampler": "dpmpp_2m", "candidates": 1}  # quick


def write_samples(codi: CoDi, streams: Sequence[str], prompts: Sequence[str], folder: Path, step: int) -> None:
    """Generate the streams jointly from prompts and write ``<step>/<modality>_<number>.*`` into `folder`."""
    out = folder / f"{step:06d}"
    out.mkdir(parents=True, exist_ok=True)
    alignment = "paper" if len(streams) > 1 else "none"  # without auxiliary streams
    latents = codi.generate_latents(codi.prompt("text", prompts), streams, alignment=alignment, **_SAMPLING)
    decoded = {name: codi.decode(name, z) for name, z in latents.items()}
    for i in range(len(prompts)):
        write_result(out, codi.config, decoded, i, len(prompts))
