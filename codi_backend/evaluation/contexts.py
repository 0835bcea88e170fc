"""What guides Versatile Diffusion in an evaluation: scenes as texts and pictures, whole, or one against the other.

Where a text and a picture disagree, the scene of a record is what is asked for; see each class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..contexts import Context, MixedContext, concatenate, mix
from ..data.captions import caption, shown
from ..data.world import COLOURS, COUNTS, IMAGE_SIZE, SHAPES, Scene, make_scene
from ..model import CoDi
from ..versatile import edit_text_latent, low_rank
from .prompts import Guide, render, wording

SEEN = ("colour", "shape", "count")
_VALUES = {"colour": tuple(COLOURS), "shape": SHAPES, "count": COUNTS}
_OTHER_SEED = 2000
_HALF = 0.5  # the text's share of the guidance
_DESCRIPTION = 0.67  # the same in the original's editing tool (SPEC_VD section 8)


@dataclass(frozen=True)
class Described(Guide):
    """A text that names what can be seen of the scene, in one of the world's wordings."""

    modalities = {"text"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Context:
        texts = [caption(scene, shown(scene, "image"), wording(i)) for i, scene in enumerate(scenes, first)]
        return codi.context("text", texts)


@dataclass(frozen=True)
class Pictured(Guide):
    """A picture of the scene, of some focus."""

    focus: float = 0.5
    modalities = {"image"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Context:
        return codi.context("image", render("image", scenes), focus=self.focus)


@dataclass(frozen=True)
class Dual(Guide):
    """A text that names one attribute of the scene, and a picture that has another value of it, half and half.

    What the text leaves open is to come from the picture. `focus` can take from the picture what the text says.
    """

    said: str
    focus: float
    modalities = {"text", "image"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> MixedContext:
        texts = codi.context("text", [caption(scene, (self.said,)) for scene in scenes])
        pictures = render("image", [unlike(scene, (self.said,), i) for i, scene in enumerate(scenes, first)])
        return mix([(texts, _HALF), (codi.context("image", pictures, focus=self.focus), 1 - _HALF)])


@dataclass(frozen=True)
class Contrary(Guide):
    """A text about a scene of another colour and shape; for runs that begin with the picture of the scene itself."""

    modalities = {"text"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> Context:
        told = [unlike(scene, SEEN[:2], i) for i, scene in enumerate(scenes, first)]
        return codi.context("text", [caption(scene, SEEN) for scene in told])

    def notes(self, scene: Scene, index: int) -> dict[str, Any]:
        """What the text says."""
        told = unlike(scene, SEEN[:2], index)
        return {"told": {name: getattr(told, name) for name in SEEN}}


@dataclass(frozen=True)
class Edited(Guide):
    """A picture with another value of one attribute, a text that names that value, and one that names the scene's.

    Attributes
    ----------
    by_text : bool
        As the original's withdrawn tool does: describe the picture, edit the latent of the description, and draw what
        it then says with the picture's strongest components as style. Otherwise the positive text goes with the
        picture, and guidance leads away from the negative one.
    """

    by_text: bool
    modalities = {"text", "image"}

    def encode(self, codi: CoDi, scenes: Sequence[Scene], first: int) -> MixedContext:
        changes = [_changed(i) for i in range(first, first + len(scenes))]
        before = [unlike(scene, (name,), i) for i, (scene, name) in enumerate(zip(scenes, changes), first)]
        negative, positive = (
            [caption(scene, (name,)) for scene, name in zip(which, changes)] for which in (before, scenes)
        )
        picture, share = codi.context("image", render("image", before)), _HALF
        if self.by_text:
            share = _DESCRIPTION
            text = concatenate(
                [
                    codi.context("text", _edited_descriptions(codi, picture, negative, positive, first)),
                    codi.context("text", positive),
                ]
            )
            picture = _as_style(codi, picture)
        else:
            text = Context("text", *(codi.context("text", texts).tokens for texts in (positive, negative)))
        return mix([(text, share), (picture, 1 - share)])

    def notes(self, scene: Scene, index: int) -> dict[str, Any]:
        """Which attribute is edited."""
        return {"changed": _changed(index)}


def unlike(scene: Scene, names: Sequence[str], index: int) -> Scene:
    """The scene with other values of these attributes; with another number of objects, also in other places."""
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
    return SEEN[index % len(SEEN)]


def _edited_descriptions(
    codi: CoDi, picture: Context, negative: Sequence[str], positive: Sequence[str], seed: int
) -> list[str]:
    described = codi.generate_latents(picture, ["text"], seed=seed)["text"]
    return codi.decode(
        "text", edit_text_latent(described, codi.encode("text", negative), codi.encode("text", positive))
    )


def _as_style(codi: CoDi, picture: Context) -> Context:
    """The strongest components of the local tokens, without the class token (SPEC_VD section 8)."""
    grey = codi.context("image", torch.full((1, 3, IMAGE_SIZE, IMAGE_SIZE), 0.5)).tokens[:, 1:]
    tokens = low_rank(picture.tokens[:, 1:], 1)
    return Context("image", tokens, grey.expand_as(tokens))
