"""What a recipe is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..pipeline import CoDi
from .diffusers import Latents


class TrainingData(Protocol):
    """Data of the recipe's stages: Shapes & Chimes (`Scenes`), or a user's own (`OwnData`)."""

    def examples(self, streams: Sequence[str]) -> Sequence[str]:
        """Prompts of the samples that a stage of these streams writes: captions of such contents."""

    def contents(self, modality: str, step: int, size: int, seed: int) -> dict[str, Any]:
        """``contents``, stacked, and ``captions`` of one step, which describe no more than these contents."""

    def texts(self, step: int, size: int, seed: int) -> list[str]:
        """Captions of one step, of which some are partial."""

    def sample(self, modality: str, count: int) -> Any:
        """At most `count` contents, the same every time: stacked, or a list of texts."""

    def latents(
        self, folder: Path, codi: CoDi, streams: Sequence[str], prompts: Sequence[str], report: Callable[[str], None],
        workers: int,
    ) -> Latents:  # fmt: skip
        """Latents and prompt embeddings, encoded once and kept in `folder`."""
