"""The prompts of an evaluation: scenes that training never drew, shown, played or said, wholly or in part.

Which attributes a prompt leaves open is what the tables are about:

- `Whole` describes the scene in one modality;
- `Partial` is a text that leaves out half of the attributes on average;
- `Mixed` takes the colour from one modality and the shape from another;
- `Nothing` is the empty text, for runs in which a held stream says everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..conditioning import Prompt, interpolate
from ..data.captions import ATTRIBUTES, caption, shown
from ..data.images import render_image, render_video
from ..data.sounds import render_sound
from ..data.world import COLOURS, SAMPLE_RATE, SHAPES, Scene
from ..model import CoDi

_WORDING_SEED = 1000


class Guide:
    """What guides a run. A kind of guide says of which modalities its contents are, and encodes those of scenes."""

    modalities: set[str]

    def notes(self, scene: Scene, index: int) -> dict[str, Any]:
        """What a record says of the guidance by scene number `index`, beside the scene."""
        return {}


@dataclass(frozen=True)
class Whole(Guide):
    """The scene in one modality; a text names what can be seen or heard, in one of the world's wordings."""

    modality: str

    @property
    def modalities(self) -> set[str]:
        return {self.modality}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Prompt:
        """`first` is the number of the first scene, from which wordings follow."""
        if self.modality != "text":
            return _encode(codi, self.modality, scenes)
        return codi.prompt("text", [caption(s, shown(s, "video"), wording(i)) for i, s in enumerate(scenes, first)])


@dataclass(frozen=True)
class Partial(Guide):
    """A text from which every attribute is missing as often as not; of 16 scenes, each misses another subset."""

    modalities = {"text"}

    @staticmethod
    def left_out(index: int) -> tuple[str, ...]:
        """What the text about scene number `index` does not say."""
        return tuple(a for bit, a in enumerate(ATTRIBUTES) if index >> bit & 1)

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Prompt:
        texts = []
        for i, scene in enumerate(scenes, first):
            said = tuple(a for a in ATTRIBUTES if a not in self.left_out(i))
            texts.append(caption(scene, said, wording(i)))
        return codi.prompt("text", texts)

    def notes(self, scene: Scene, index: int) -> dict[str, Any]:
        """What the text leaves out."""
        return {"left_out": list(self.left_out(index))}


@dataclass(frozen=True)
class Mixed(Guide):
    """The colour from one modality and the shape from another, half and half.

    A text leaves an attribute open by not naming it. A picture, a clip or a sound cannot: it always has a colour and a
    shape. So it is given as a set of six that differ in that attribute only, with equal shares: together they say the
    rest and leave it open, and all of them are contents that the prompt encoders know. They are mixed along the sphere:
    the linear mean of so many is 0.6 long, and what the diffusers were trained on has length 1.

    Attributes
    ----------
    grey : bool
        Give the shape as one picture drawn in grey instead, a colour that the world does not have.
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
        self, codi: CoDi, modality: str, said: str, left_open: str, values: Sequence[str], scenes: Sequence[Scene]
    ) -> Prompt:
        if modality == "text":
            return codi.prompt("text", [caption(scene, (said,)) for scene in scenes])
        if self.grey and said == "shape":
            red = render("image", [dataclasses.replace(scene, colour="red") for scene in scenes])
            return codi.prompt("image", red.mean(1, keepdim=True).expand_as(red))
        variants = [[dataclasses.replace(scene, **{left_open: value}) for scene in scenes] for value in values]
        return interpolate([(_encode(codi, modality, variant), 1.0) for variant in variants], "slerp")


@dataclass(frozen=True)
class Nothing(Guide):
    """The empty text."""

    modalities = {"text"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Prompt:
        return codi.prompt("text", [""] * len(scenes))


def prompt_modalities(codi: CoDi) -> set[str]:
    """Modalities of which the model can encode prompts; videos share the encoder of images if it is temporal."""
    encoder = codi.config.image_encoder
    return set(codi.prompt_encoders) | ({"video"} if encoder is not None and encoder.temporal else set())


def render(modality: str, scenes: Sequence[Scene]) -> Tensor:
    """Scenes as ``image [B, 3, 64, 64]`` or ``video [B, 3, 16, 64, 64]`` in 0..1, or ``audio [B, 1, 40960]``."""
    if modality == "image":
        return torch.from_numpy(np.stack([render_image(scene) for scene in scenes])).permute(0, 3, 1, 2)
    if modality == "video":
        return torch.from_numpy(np.stack([render_video(scene) for scene in scenes])).permute(0, 4, 1, 2, 3)
    return torch.from_numpy(np.stack([render_sound(scene) for scene in scenes]))[:, None]


def _encode(codi: CoDi, modality: str, scenes: Sequence[Scene]) -> Prompt:
    return codi.prompt(modality, render(modality, scenes), SAMPLE_RATE if modality == "audio" else None)


def wording(index: int) -> np.random.Generator:
    """Chooses the wording of the text about scene number `index`."""
    return np.random.default_rng((_WORDING_SEED, index))
