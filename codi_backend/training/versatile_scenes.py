"""Shapes & Chimes for Versatile Diffusion: images and captions, and contexts that share attributes with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..conditioning.focus import focus_local
from ..data import sample_scene
from ..data.captions import ATTRIBUTES, caption, described_attributes
from ..data.images import render_image
from ..data.world import Scene
from ..pipeline import CoDi
from .encoding import stored_latents

# Above 0.5 there is hardly a change: five components hold nearly all of these tokens' variance.
LEVELS = (0.5, 0.0, 0.25)
_VISIBLE = ATTRIBUTES[:3]
_CHUNK = 64
_FOCUSED = 0.3  # share of image contexts with a focus other than 0.5
_TEXT_SHARE = (0.3, 0.9)  # weight of the text beside an image
_LEFT_OUT = {1: 0.25, 2: 0.5}  # share of attributes that a text leaves out: alone, and with an image


class VersatileScenes:
    """Scaled latents of images and captions, and the tokens of images at some levels of focus.

    Parameters
    ----------
    latents : dict of str to Tensor
        ``image``, ``text`` (full captions) and ``plain`` (captions without the tempo); half
        precision, one row a scene.
    tokens : Tensor
        ``[len(LEVELS), M, L, D]``, half precision: image contexts of the first M scenes by focus.
    black : Tensor
        ``[L, D]``: the tokens of a black image.
    seed : int
        Of the scenes.
    """

    def __init__(self, latents: dict[str, Tensor], tokens: Tensor, black: Tensor, seed: int):
        self.latents, self.tokens, self.black = latents, tokens, black
        self.scenes = [sample_scene(seed, i) for i in range(len(latents["image"]))]
        self._alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for row, scene in enumerate(self.scenes):
            for kept in _subsets():
                self._alike[_key(scene, kept)].append(row)

    @classmethod
    def load_or_encode(
        cls,
        folder: Path,
        codi: CoDi,
        scenes: int = 10_000,
        contexts: int = 6_000,
        seed: int = 1,
        report: Callable[[str], None] = print,
    ) -> VersatileScenes:
        """Read ``folder/versatile_scenes.safetensors``, or encode `scenes` and the contexts of the first of them."""
        path = folder / "versatile_scenes.safetensors"
        if not path.exists():
            save_file(_encode(codi, scenes, contexts, seed, report), path)
        stored = load_file(path)
        return cls({name: stored[name] for name in ("image", "text", "plain")}, stored["tokens"], stored["black"], seed)

    def batch(self, step: int, size: int, seed: int, output: str, kinds: Sequence[str], empty: float = 0.1) -> Any:
        """Latents of an output and their contexts; a function of the arguments alone.

        An image context has the colour, shape and count of the output, but not the places. Attributes that its focus
        removes are drawn anew: towards 0 more and more of the colours. A text overrides an image context: its
        attributes may differ from the image's. Texts leave out each attribute with probability 1/4, and 1/2 beside an
        image.

        Parameters
        ----------
        output : {"image", "text"}
        kinds : sequence of str
            Of the contexts: text, image or both.
        empty : float
            Probability of empty contexts (classifier-free dropout): an empty text; and zeros, or for a text output a
            black image. Of two contexts, each is empty alone half as often.

        Returns
        -------
        dict
            Under the output's name latents ``[size, ...]``; ``captions``: list of str, and ``tokens``:
            ``[size, L, D]``, for the kinds asked for; ``share``: ``[size]``, the text's share of the guidance, the same
            for all.
        """
        rng = np.random.default_rng((seed, step, 2))
        share = {("text",): 1.0, ("image",): 0.0}.get(tuple(kinds), rng.uniform(*_TEXT_SHARE))
        left_out = _LEFT_OUT[len(kinds)]
        latents, captions, tokens = [], [], []
        for _ in range(size):
            empty_kinds = _empty_kinds(rng, kinds, empty)
            stated = tuple(
                a for a in ATTRIBUTES if rng.random() >= left_out and "text" in kinds and "text" not in empty_kinds
            )
            source, level = int(rng.integers(self.tokens.shape[1])), 0
            if "image" in kinds and "image" not in empty_kinds:
                level = int(rng.integers(1, len(LEVELS))) if rng.random() < _FOCUSED else 0
                kept = tuple(a for a in _kept(LEVELS[level], rng.random()) if a not in stated)
            else:
                kept = ()
            alike = self._alike[_key(self.scenes[source], kept)]
            row = alike[int(rng.integers(len(alike)))]
            captions.append(caption(self.scenes[row], stated, rng))
            table = "plain" if output == "text" and "tempo" not in stated else output
            latents.append(self.latents[table][row].float())
            if "image" in empty_kinds:
                tokens.append(self.black.float() if output == "text" else torch.zeros_like(self.black.float()))
            else:
                tokens.append(self.tokens[level, source].float())
        batch: dict[str, Any] = {output: torch.stack(latents), "share": torch.full((size,), share)}
        if "text" in kinds:
            batch["captions"] = captions
        if "image" in kinds:
            batch["tokens"] = torch.stack(tokens)
        return batch


def _subsets() -> list[tuple[str, ...]]:
    return [tuple(a for bit, a in enumerate(_VISIBLE) if number >> bit & 1) for number in range(2 ** len(_VISIBLE))]


def _key(scene: Scene, kept: tuple[str, ...]) -> tuple[Any, ...]:
    return (kept, *(getattr(scene, a) for a in kept))


def _kept(focus: float, draw: float) -> tuple[str, ...]:
    """The attributes that an image of this focus passes on, by a draw from 0 to 1."""
    return ("colour",) * (draw < 2 * focus) + ("shape", "count")


def _empty_kinds(rng: np.random.Generator, kinds: Sequence[str], empty: float) -> set[str]:
    draw = rng.random()
    if draw < empty:
        return set(kinds)
    if len(kinds) > 1 and draw < 2 * empty:
        return {kinds[int(draw < 1.5 * empty)]}
    return set()


@torch.inference_mode()
def _encode(codi: CoDi, scenes: int, contexts: int, seed: int, report: Callable[[str], None]) -> dict[str, Tensor]:
    rows: dict[str, list[Tensor]] = {"image": [], "text": [], "plain": [], "tokens": []}
    for first in range(0, scenes, _CHUNK):
        numbers = range(first, min(first + _CHUNK, scenes))
        chunk = [sample_scene(seed, i) for i in numbers]
        pixels = torch.from_numpy(np.stack([render_image(scene) for scene in chunk])).permute(0, 3, 1, 2)
        rows["image"].append(stored_latents(codi, "image", pixels))
        for name, stated in (("text", ATTRIBUTES), ("plain", described_attributes(chunk[0], "image"))):
            texts = [caption(scene, stated, np.random.default_rng((seed, i, 1))) for i, scene in zip(numbers, chunk)]
            rows[name].append(stored_latents(codi, "text", texts))
        if first < contexts:
            plain = codi.context("image", pixels[: contexts - first]).tokens
            rows["tokens"].append(torch.stack([focus_local(plain, level) for level in LEVELS]).half())
        if first % (32 * _CHUNK) == 0:
            report(f"encoding {first}/{scenes}")
    encoded = {name: torch.cat(chunks, 1 if name == "tokens" else 0).contiguous() for name, chunks in rows.items()}
    return encoded | {"black": codi.context("image", torch.zeros(1, 3, 64, 64)).without("text")[0].half()}
