"""Shapes & Chimes as training data of the recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import ShapesAndChimes, sample_scene
from ..data.captions import caption, described_attributes, partial_caption
from ..pipeline import CoDi
from . import recipe
from .latents import SceneLatents

_LEAVE_OUT = (0.0, 0.5)  # full captions and partial ones, half of the time each


class Scenes:
    """The procedural world; see `TrainingData` for its methods."""

    def examples(self, streams: Sequence[str]) -> Sequence[str]:
        return "three red stars, slowly", "one blue circle", "four green hearts, quickly", "shapes"

    def contents(self, modality: str, step: int, size: int, seed: int) -> dict[str, Any]:
        data = ShapesAndChimes((step + 1) * size, (modality,), seed=seed)
        batch = data.collate([data[i] for i in range(step * size, (step + 1) * size)])
        captions = [caption(scene, described_attributes(scene, modality)) for scene in batch["scene"]]
        return {"contents": batch[modality], "captions": captions}

    def texts(self, step: int, size: int, seed: int) -> list[str]:
        rng = np.random.default_rng((seed, step, 3))
        scenes = (sample_scene(seed, i) for i in range(step * size, (step + 1) * size))
        return [partial_caption(scene, rng, float(rng.choice(_LEAVE_OUT))) for scene in scenes]

    def sample(self, modality: str, count: int) -> Any:
        data = ShapesAndChimes(count, (modality,), seed=1, leave_out=0.0)
        return data.collate([data[i] for i in range(count)])[modality]

    def latents(
        self, folder: Path, codi: CoDi, streams: Sequence[str], prompts: Sequence[str], report: Callable[[str], None],
        workers: int,
    ) -> SceneLatents:  # fmt: skip
        return SceneLatents.load_or_encode(
            folder, codi, streams, prompts, recipe.SCENES, report=report, workers=workers
        )


SHAPES_AND_CHIMES = Scenes()
