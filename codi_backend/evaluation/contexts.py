"""Contexts of the evaluation of Versatile Diffusion: scenes as texts and images, alone or contradicting each other.

Where a text and an image contradict each other, the scene of a record is the intended result; see each class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..conditioning.context import Context, MixedContext, concatenate, mix
from ..conditioning.editing import edit_text_latent, low_rank
from ..data.captions import caption, described_attributes
from ..data.world import COLOURS, COUNTS, IMAGE_SIZE, SHAPES, Scene, make_scene
from ..pipeline import CoDi
from .prompts import Conditioning, render, wording

VISIBLE = ("colour", "shape", "count")
_VALUES = {"colour": tuple(COLOURS), "shape": SHAPES, "count": COUNTS}
_OTHER_SEED = 2000
_TEXT_RATIO = 0.5
_DESCRIPTION_RATIO = 0.67  # of the text in the original's editing tool (SPEC_VD section 8)


@dataclass(frozen=True)
class TextContext(Conditioning):
    """A text that names the visible attributes of the scene, in one of the data set's wordings."""

    modalities = {"text"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Context:
        texts = [
            caption(scene, described_attributes(scene, "image"), wording(i)) for i, scene in enumerate(scenes, first)
        ]
        return codi.context("text", texts)


@dataclass(frozen=True)
class ImageContext(Conditioning):
    """An image of the scene, with a focus level."""

    focus: float = 0.5
    modalities = {"image"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Context:
        return codi.context("image", render("image", scenes), focus=self.focus)


@dataclass(frozen=True)
class DualContext(Conditioning):
    """A text that states one attribute of the scene, and an image with another value of it, in equal ratios.

    The attributes that the text leaves out come from the image. `focus` can weaken the stated attribute in the image.
    """

    stated: str
    focus: float
    modalities = {"text", "image"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> MixedContext:
        texts = codi.context("text", [caption(scene, (self.stated,)) for scene in scenes])
        images = render("image", [unlike(scene, (self.stated,), i) for i, scene in enumerate(scenes, first)])
        return mix([(texts, _TEXT_RATIO), (codi.context("image", images, focus=self.focus), 1 - _TEXT_RATIO)])


@dataclass(frozen=True)
class ContradictingText(Conditioning):
    """A text with another colour and shape, for runs that start from the image of the scene."""

    modalities = {"text"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Context:
        others = [unlike(scene, VISIBLE[:2], i) for i, scene in enumerate(scenes, first)]
        return codi.context("text", [caption(scene, VISIBLE) for scene in others])

    def notes(self, scene: Scene, index: int) -> dict[str, Any]:
        """The attributes that the text states."""
        other = unlike(scene, VISIBLE[:2], index)
        return {"told": {name: getattr(other, name) for name in VISIBLE}}


@dataclass(frozen=True)
class EditedImage(Conditioning):
    """An image and a negative text with another value of one attribute, and a positive text with the scene's.

    Attributes
    ----------
    by_text : bool
        Edit as the original's withdrawn tool does: caption the image, edit the latent of the caption, and generate
        from the edited caption with the image's strongest components as style. Otherwise the positive text and the
        image are mixed, and the negative text is the unconditional context.
    """

    by_text: bool
    modalities = {"text", "image"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> MixedContext:
        changes = [_changed(i) for i in range(first, first + len(scenes))]
        before = [unlike(scene, (name,), i) for i, (scene, name) in enumerate(zip(scenes, changes), first)]
        negative, positive = (
            [caption(scene, (name,)) for scene, name in zip(which, changes)] for which in (before, scenes)
        )
        image, ratio = codi.context("image", render("image", before)), _TEXT_RATIO
        if self.by_text:
            ratio = _DESCRIPTION_RATIO
            text = concatenate(
                [
                    codi.context("text", _edited_captions(codi, image, negative, positive, first)),
                    codi.context("text", positive),
                ]
            )
            image = _as_style(codi, image)
        else:
            text = Context("text", *(codi.context("text", texts).tokens for texts in (positive, negative)))
        return mix([(text, ratio), (image, 1 - ratio)])

    def notes(self, scene: Scene, index: int) -> dict[str, Any]:
        """The attribute that is edited."""
        return {"changed": _changed(index)}


def unlike(scene: Scene, names: Sequence[str], index: int) -> Scene:
    """The scene with other values of these attributes. With another count, the objects are also in other places."""
    rng = np.random.default_rng((_OTHER_SEED, index))
    others = {
        name: others[int(rng.integers(len(others)))]
        for name in names
        for others in ([value for value in _VALUES[name] if value != getattr(scene, name)],)
    }
    changed = dataclasses.replace(scene, **others)
    if changed.count == scene.count:
        return changed
    return make_scene(changed.colour, changed.shape, changed.count, scene.tempo, scene.start, index)


def _changed(index: int) -> str:
    return VISIBLE[index % len(VISIBLE)]


def _edited_captions(
    codi: CoDi, image: Context, negative: Sequence[str], positive: Sequence[str], seed: int
) -> list[str]:
    captions = codi.generate_latents(image, ["text"], seed=seed)["text"]
    return codi.decode("text", edit_text_latent(captions, codi.encode("text", negative), codi.encode("text", positive)))


def _as_style(codi: CoDi, image: Context) -> Context:
    """The strongest components of the local tokens, without the class token (SPEC_VD section 8)."""
    grey = codi.context("image", torch.full((1, 3, IMAGE_SIZE, IMAGE_SIZE), 0.5)).tokens[:, 1:]
    tokens = low_rank(image.tokens[:, 1:], 1)
    return Context("image", tokens, grey.expand_as(tokens))
