"""Augmentation: random changes of contents that leave their captions true."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_SPEEDS = 50  # steps between 0 and 1, so that resampling has short filters


@dataclass(frozen=True)
class Augmentation:
    """How much contents are changed at random; 0 leaves them as they are.

    Attributes
    ----------
    crop : float
        Largest share of an image's side that a random crop removes; below 1.
    colour : float
        Largest relative change of brightness, contrast and saturation; below 1.
    speed : float
        Largest relative change of the speed of audio and video; below 1. As with a tape, the pitch changes too.
    copies : int
        Of each content whose latents are stored: the content itself, and ``copies - 1`` changed ones.
    """

    crop: float = 0.0
    colour: float = 0.0
    speed: float = 0.0
    copies: int = 1

    def __post_init__(self) -> None:
        for name in ("crop", "colour", "speed"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"An augmentation with a {name} of {getattr(self, name)} is not possible: choose 0 "
                                 "or more, below 1.")  # fmt: skip
        if not 1 <= self.copies <= 64:
            raise ValueError(f"{self.copies} copies of each content are not possible: choose 1 to 64.")

    def draw(self, rng: np.random.Generator) -> Variation:
        """A random change."""
        crop = self.crop * rng.random()
        left, top = crop * rng.random(2)
        brightness, contrast, saturation = 1 + self.colour * rng.uniform(-1, 1, 3)
        return Variation(
            float(crop), float(left), float(top), float(brightness), float(contrast), float(saturation),
            round((1 + self.speed * rng.uniform(-1, 1)) * _SPEEDS) / _SPEEDS,
        )  # fmt: skip

    def copy(self, number: int, content: int) -> Variation:
        """The change of a content, given by its number, in one of its copies; copy 0 is unchanged.

        All contents have the same speed in copies of the same number: audio and video stay together.
        """
        if number == 0:
            return UNCHANGED
        speed = self.draw(np.random.default_rng((number, 8))).speed
        return replace(self.draw(np.random.default_rng((number, content, 9))), speed=speed)


@dataclass(frozen=True)
class Variation:
    """One change: a square without `crop` of the sides, from `left` and `top` on; factors of colours and of speed."""

    crop: float = 0.0
    left: float = 0.0
    top: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    speed: float = 1.0

    def of_pixels(self, frames: Tensor) -> Tensor:
        """Square frames ``[N, 3, S, S]`` in 0..1, cropped, resized to S again and coloured."""
        side = frames.shape[-1]
        kept = max(1, round(side * (1 - self.crop)))
        if kept < side:
            left, top = (min(round(side * offset), side - kept) for offset in (self.left, self.top))
            frames = frames[..., top : top + kept, left : left + kept]
            frames = F.interpolate(frames, (side, side), mode="bicubic", antialias=True)
        if self.brightness == self.contrast == self.saturation == 1:
            return frames.clamp(0, 1)
        grey = frames.mean(1, keepdim=True)
        frames = grey + self.saturation * (frames - grey)
        return torch.clamp(self.brightness * (0.5 + self.contrast * (frames - 0.5)), 0, 1)


UNCHANGED = Variation()
NONE = Augmentation()
