"""Texts and images -> contexts of all tokens (SPEC_VD sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..checks.inputs import as_mask, as_pixels
from ..checks.numbers import MAX_SCALE, require_number
from ..models.encoders.preprocess import clip_mask, clip_pixels
from .context import Context
from .focus import focus_local

_GREYS = {"black": 0.0, "grey": 0.5}
UNCONDITIONAL = ("zeros", *_GREYS)


def text_context(all_tokens: Callable[[list[str]], Tensor], texts: Sequence[str]) -> Context:
    """A context of all tokens of each text; the unconditional tokens are those of the empty text.

    `all_tokens` is the encoder: texts -> ``[B, L, D]``.
    """
    tokens = all_tokens([*texts, ""])
    return Context("text", tokens[:-1], tokens[-1:].expand(len(texts), -1, -1))


def image_context(
    all_tokens: Callable[[Tensor, Tensor | None], Tensor],
    side: int,
    pixels: Tensor,
    mask: Tensor | None = None,
    weight: float = 1.0,
    focus: float = 0.5,
    unconditional: str | None = None,
) -> Context:
    """A context of the class token and all patches of each image; see `CoDi.context`.

    `all_tokens` is the encoder, see `ImageEncoder.all_tokens`, which looks at squares of `side` pixels; it
    brings what it is given to where it computes.

    `ValueError` if an argument does not fit.
    """
    if unconditional not in (None, *UNCONDITIONAL):
        raise ValueError(f"There is no unconditional {unconditional!r}; choose from {', '.join(UNCONDITIONAL)}.")
    pixels = as_pixels(pixels, "The image of a context")
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"An image context takes images [B, 3, H, W] in 0..1, not {list(pixels.shape)}.")
    weight = require_number(weight, "weight", -MAX_SCALE, MAX_SCALE)
    focus = require_number(focus, "focus", 0, 1)
    if mask is not None:
        mask = clip_mask(_checked(mask, len(pixels)), *pixels.shape[2:], side)
    tokens = all_tokens(clip_pixels(pixels, side, via_signed=False), mask)
    if focus != 0.5:
        tokens = focus_local(tokens, focus)
    tokens = tokens * weight

    def of_nothing(name: str) -> Tensor:
        if name == "zeros":
            return torch.zeros_like(tokens)
        plain = torch.full((1, 3, side, side), _GREYS[name])
        return all_tokens(clip_pixels(plain, side), None).expand_as(tokens)

    if unconditional is None:
        return Context("image", tokens, of_nothing("zeros"), unconditional_for_text=of_nothing("black"))
    return Context("image", tokens, of_nothing(unconditional))


def _checked(mask: Tensor, count: int) -> Tensor:
    """The mask of a batch of images, brought to the batch size."""
    mask = as_mask(mask, "The mask")
    if mask.ndim != 4 or mask.shape[1] != 1 or len(mask) not in (1, count) or mask.numel() == 0:
        raise ValueError(
            f"The mask is {list(mask.shape)}: give one of [{count}, 1, height, width], or [1, 1, height, width]."
        )
    return mask.expand(count, -1, -1, -1)
