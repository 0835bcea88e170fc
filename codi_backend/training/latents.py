"""Latents of Shapes & Chimes, encoded once and read by every later stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..data import ShapesAndChimes, sample_scene
from ..data.captions import partial_caption


class SceneLatents:
    """Scaled latents (unit variance, as the diffuser sees them) of a fixed list of training scenes.

    Attributes
    ----------
    latents : dict of str to Tensor
        By modality, half precision, one row a scene.
    """

    def __init__(self, latents: dict[str, Tensor], seed: int):
        self.latents, self.seed = latents, seed
        self.count = len(next(iter(latents.values())))

    @classmethod
    def load_or_encode(
        cls,
        folder: Path,
        autoencoders: dict[str, nn.Module],
        count: int,
        seed: int = 1,
        report: Callable[[str], None] = print,
    ) -> SceneLatents:
        """Read ``folder/latents_<modality>.safetensors``, or encode `count` scenes and write it there."""
        latents = {}
        for name, autoencoder in autoencoders.items():
            path = folder / f"latents_{name}.safetensors"
            if not path.exists():
                save_file({name: _encode(name, autoencoder, count, seed, report)}, path)
            latents.update(load_file(path))
        return cls(latents, seed)

    def batch(
        self, step: int, size: int, seed: int, modalities: tuple[str, ...], leave_out: float, empty: float
    ) -> dict[str, Tensor | list[str]]:
        """Latents and captions of `size` random scenes; a function of the arguments alone.

        Captions leave each attribute out with probability `leave_out`, and are empty altogether with probability
        `empty` (classifier-free dropout).
        """
        rng = np.random.default_rng((seed, step, 2))
        rows = rng.integers(0, self.count, size)
        batch: dict[str, Tensor | list[str]] = {m: self.latents[m][torch.from_numpy(rows)].float() for m in modalities}
        batch["text"] = [
            "" if rng.random() < empty else partial_caption(sample_scene(self.seed, int(row)), rng, leave_out)
            for row in rows
        ]
        return batch


@torch.inference_mode()
def _encode(name: str, encoder: nn.Module, count: int, seed: int, report: Callable[[str], None]) -> Tensor:
    data = ShapesAndChimes(count, (name,), seed=seed)
    rows = []
    for first in range(0, count, 64):
        items = torch.stack([data[i][name] for i in range(first, min(first + 64, count))])
        rows.append((encoder.encode(items) * encoder.config.scale_factor).half())
        if first % 4096 == 0:
            report(f"encoding {name}: {first}/{count}")
    return torch.cat(rows).contiguous()
