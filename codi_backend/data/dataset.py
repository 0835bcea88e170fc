"""Shapes & Chimes as a torch Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .audio import render_audio
from .captions import partial_caption
from .images import render_image, render_video
from .world import sample_scene

_SPLITS = ("train", "held_out", "all")


class ShapesAndChimes(Dataset):
    """An endless world, cut to `length` scenes; item `i` is the same in every run with the same seed.

    An item is a dict with the modalities asked for and, always, the `scene`:
    ``image [3, 64, 64]`` and ``video [3, 16, 64, 64]`` in 0..1, ``audio [1, 40960]`` at 16 kHz, ``text`` str.

    Parameters
    ----------
    length : int
        Number of scenes.
    modalities : sequence of str
        Any of image, video, audio, text.
    split : {"train", "held_out", "all"}
        Which (colour, shape, count) triples occur.
    seed : int
        Chooses the scenes and the captions' wording.
    leave_out : float
        Probability with which a caption leaves each attribute out.
    """

    def __init__(
        self,
        length: int,
        modalities: Sequence[str] = ("image", "audio", "text"),
        split: str = "train",
        seed: int = 0,
        leave_out: float = 0.25,
    ):
        if split not in _SPLITS:
            raise ValueError(f"There is no split {split!r}; choose from {', '.join(_SPLITS)}.")
        if unknown := set(modalities) - {"image", "video", "audio", "text"}:
            raise ValueError(f"Shapes & Chimes has no modality {', '.join(sorted(unknown))}.")
        self.length, self.modalities, self.split, self.seed, self.leave_out = length, modalities, split, seed, leave_out

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        scene = sample_scene(self.seed, index, self.split)
        item: dict[str, Any] = {"scene": scene}
        if "image" in self.modalities:
            item["image"] = torch.from_numpy(render_image(scene)).permute(2, 0, 1)
        if "video" in self.modalities:
            item["video"] = torch.from_numpy(render_video(scene)).permute(3, 0, 1, 2)
        if "audio" in self.modalities:
            item["audio"] = torch.from_numpy(render_audio(scene))[None]
        if "text" in self.modalities:
            item["text"] = partial_caption(scene, np.random.default_rng((self.seed, index, 1)), self.leave_out)
        return item

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Stack tensors; texts and scenes stay lists."""
        return {
            key: torch.stack([item[key] for item in items])
            if torch.is_tensor(items[0][key])
            else [item[key] for item in items]
            for key in items[0]
        }
