"""The prompts of an evaluation: scenes outside the training set, described completely or in part.

- `Whole` describes the scene in one modality;
- `Partial` is a text that leaves out half of the attributes on average;
- `Mixed` takes the colour from one modality and the shape from another;
- `Empty` is the empty text, for runs that are conditioned by a held stream alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..conditioning.prompt import Prompt, interpolate
from ..data.audio import render_audio
from ..data.captions import ATTRIBUTES, caption, described_attributes
from ..data.images import render_image, render_video
from ..data.world import COLOURS, SAMPLE_RATE, SHAPES, Scene
from ..pipeline import CoDi

_WORDING_SEED = 1000


class Conditioning:
    """The conditioning of a run: `modalities` are those of its contents, which `encode` makes from scenes."""

    modalities: set[str]

    def notes(self, scene: Scene, index: int) -> dict[str, Any]:
        """Entries of the record of scene number `index` that describe its conditioning."""
        return {}


@dataclass(frozen=True)
class Whole(Conditioning):
    """The scene in one modality; a text names its visible and audible attributes, in one of the data set's wordings."""

    modality: str

    @property
    def modalities(self) -> set[str]:
        return {self.modality}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Prompt:
        """`first` is the number of the first scene; the wordings depend on it."""
        if self.modality != "text":
            return _encode(codi, self.modality, scenes)
        return codi.prompt(
            "text", [caption(s, described_attributes(s, "video"), wording(i)) for i, s in enumerate(scenes, first)]
        )


@dataclass(frozen=True)
class Partial(Conditioning):
    """A text that leaves out each attribute in half of the scenes; 16 consecutive scenes have all 16 subsets."""

    modalities = {"text"}

    @staticmethod
    def left_out(index: int) -> tuple[str, ...]:
        """The attributes that the text about scene number `index` leaves out."""
        return tuple(a for bit, a in enumerate(ATTRIBUTES) if index >> bit & 1)

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Prompt:
        texts = []
        for i, scene in enumerate(scenes, first):
            stated = tuple(a for a in ATTRIBUTES if a not in self.left_out(i))
            texts.append(caption(scene, stated, wording(i)))
        return codi.prompt("text", texts)

    def notes(self, scene: Scene, index: int) -> dict[str, Any]:
        """The attributes that the text leaves out."""
        return {"left_out": list(self.left_out(index))}


@dataclass(frozen=True)
class Mixed(Conditioning):
    """The colour from one modality and the shape from another, with equal weights.

    A text can leave out an attribute. An image, video or audio always has a colour and a shape, so it is given as six
    variants that differ in that attribute only, with equal weights. They are interpolated by slerp: their linear mean
    would have length 0.6, and the diffusers were trained with prompts of length 1.

    Attributes
    ----------
    grey : bool
        Give the shape as one grey image instead; the data set has no grey objects.
    """

    colour: str
    shape: str
    grey: bool = False

    @property
    def modalities(self) -> set[str]:
        return {self.colour, self.shape}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Prompt:
        return interpolate(
            [
                (self._half(codi, self.colour, "colour", "shape", SHAPES, scenes), 0.5),
                (self._half(codi, self.shape, "shape", "colour", tuple(COLOURS), scenes), 0.5),
            ],
            "slerp",
        )

    def _half(
        self, codi: CoDi, modality: str, stated: str, left_out: str, values: Sequence[str], scenes: Sequence[Scene]
    ) -> Prompt:
        if modality == "text":
            return codi.prompt("text", [caption(scene, (stated,)) for scene in scenes])
        if self.grey and stated == "shape":
            red = render("image", [dataclasses.replace(scene, colour="red") for scene in scenes])
            return codi.prompt("image", red.mean(1, keepdim=True).expand_as(red))
        variants = [[dataclasses.replace(scene, **{left_out: value}) for scene in scenes] for value in values]
        return interpolate([(_encode(codi, modality, variant), 1.0) for variant in variants], "slerp")


@dataclass(frozen=True)
class Empty(Conditioning):
    """The empty text."""

    modalities = {"text"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Prompt:
        return codi.prompt("text", [""] * len(scenes))


def prompt_modalities(codi: CoDi) -> set[str]:
    """Modalities with a prompt encoder; videos share the encoder of images if it is temporal."""
    encoder = codi.config.image_encoder
    return set(codi.prompt_encoders) | ({"video"} if encoder is not None and encoder.temporal else set())


def render(modality: str, scenes: Sequence[Scene]) -> Tensor:
    """Scenes as ``image [B, 3, 64, 64]`` or ``video [B, 3, 16, 64, 64]`` in 0..1, or ``audio [B, 1, 40960]``."""
    if modality == "image":
        return torch.from_numpy(np.stack([render_image(scene) for scene in scenes])).permute(0, 3, 1, 2)
    if modality == "video":
        return torch.from_numpy(np.stack([render_video(scene) for scene in scenes])).permute(0, 4, 1, 2, 3)
    return torch.from_numpy(np.stack([render_audio(scene) for scene in scenes]))[:, None]


def _encode(codi: CoDi, modality: str, scenes: Sequence[Scene]) -> Prompt:
    return codi.prompt(modality, render(modality, scenes), SAMPLE_RATE if modality == "audio" else None)


def wording(index: int) -> np.random.Generator:
    """The random generator of the wording of the text about scene number `index`."""
    return np.random.default_rng((_WORDING_SEED, index))
