"""The conditioning of runs on rows of the emoji dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...conditioning.prompt import Prompt
from ...data.world import SAMPLE_RATE
from ...pipeline import CoDi
from ..prompts import Conditioning
from .manifest import read_file

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Content(Conditioning):
    """The caption, image or audio of a row."""

    modality: str

    @property
    def modalities(self) -> set[str]:
        return {self.modality}

    def encode(self, codi: CoDi, rows: Rows, dataset: Path) -> Prompt:
        if self.modality == "text":
            return codi.prompt("text", [row["text"] for row in rows])
        rate = SAMPLE_RATE if self.modality == "audio" else None
        return codi.prompt(self.modality, read(self.modality, rows, dataset), rate)


@dataclass(frozen=True)
class StyleAlone(Conditioning):
    """A text that states the style of the row's image, and nothing else."""

    modalities = {"text"}

    def encode(self, codi: CoDi, rows: Rows, dataset: Path) -> Prompt:
        return codi.prompt("text", [f"{row['style']} style" for row in rows])


def read(modality: str, rows: Rows, dataset: Path) -> Tensor:
    """The images ``[B, 3, H, W]`` or audio ``[B, 1, N]`` of rows; shorter audio is padded with silence."""
    contents = [read_file(dataset, row, modality) for row in rows]
    if modality == "audio":
        length = max(wave.shape[1] for wave in contents)
        contents = [F.pad(wave, (0, length - wave.shape[1])) for wave in contents]
    return torch.stack(contents)
