"""The tokens of a CLIP_VISION_OUTPUT, for all encoders of ComfyUI."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ...codi_backend.checks.inputs import MAX_EMBEDDING
from ...codi_backend.checks.numbers import require_finite

# SigLIP's image_embeds have one vector for each token, all others' one for the image.
FIELDS = ("last_hidden_state", "penultimate_hidden_states", "all_hidden_states", "mm_projected", "image_embeds")

# SigLIP has no token for the whole image, CLIP and DINOv2 have one, DINOv3 has four registers more.
WHOLE_TOKENS = (0, 1, 5)


@dataclass(frozen=True)
class Layout:
    """The layout of tokens: first those of the whole image, then a grid of local ones, row by row."""

    whole: int
    rows: int
    columns: int

    @property
    def local(self) -> int:
        return self.rows * self.columns


def token_fields(output, name: str) -> dict[str, Tensor]:
    """All tensors ``[..., N, D]`` of an output with one entry per token.

    `ValueError` begins with the input's `name`.
    """
    fields = {field: getattr(output, field, None) for field in FIELDS}
    fields = {field: tokens for field, tokens in fields.items() if tokens is not None and tokens.ndim >= 3}
    if not fields.keys() & {"last_hidden_state", "penultimate_hidden_states"}:
        raise ValueError(f"{name}: there are no tokens in this; connect the output of CLIP Vision Encode.")
    for field, tokens in fields.items():
        require_finite(tokens, f"{name}: its {field}", "encode the image again", MAX_EMBEDDING)
    return fields


def layout(output, fields: dict[str, Tensor], name: str) -> Layout:
    """The layout of an output's tokens. `ValueError` begins with the input's `name`."""
    tokens = next(iter(fields.values())).shape[-2]
    sizes = getattr(output, "image_sizes", None)
    for whole in WHOLE_TOKENS:
        if grid := _grid(tokens - whole, sizes[0][-2:] if sizes else None):
            return Layout(whole, *grid)
    raise ValueError(
        f"{name}: {tokens} tokens do not form one image; connect the output of CLIP Vision Encode as it is, "
        "before CoDi Blend Vision Outputs."
    )


def _grid(tokens: int, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows and columns of so many tokens, from the height and width of the encoded image if they are known."""
    if tokens < 1:
        return None
    height, width = size or (0, 0)
    for patch in range(1, min(height, width) + 1):
        if (height // patch) * (width // patch) == tokens:
            return height // patch, width // patch
    side = math.isqrt(tokens)
    return (side, side) if side**2 == tokens else None
