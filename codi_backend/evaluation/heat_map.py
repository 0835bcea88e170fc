"""Similarity matrices as images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from .similarity import Similarity

_CELL = 72  # pixels, at least; also the height of a row
_TEXT = 22  # size of the letters
_MARGIN = 18
# From -1 over 0 to 1, interpolated linearly.
_COLOURS = np.float32([[33, 102, 172], [247, 247, 247], [178, 24, 43]])
_DARK, _BRIGHT = (20, 20, 20), (255, 255, 255)


def heat_map(matrices: Mapping[str, Similarity]) -> Image.Image:
    """Draw matrices side by side with titles and the cosine in each cell, from blue (-1) to red (1)."""
    panels = [_panel(title, matrix) for title, matrix in matrices.items()]
    image = Image.new("RGB", (sum(p.width for p in panels), max(p.height for p in panels)), _BRIGHT)
    left = 0
    for panel in panels:
        image.paste(panel, (left, 0))
        left += panel.width
    return image


def _panel(title: str, matrix: Similarity) -> Image.Image:
    font = ImageFont.load_default(_TEXT)
    labels = max(font.getlength(label) for label in matrix.labels)
    cell = max(_CELL, round(labels) + _MARGIN)
    left, top = round(labels) + 2 * _MARGIN, 2 * _MARGIN + (3 if title else 1) * _TEXT
    size = len(matrix.labels)
    width = max(left + size * cell, round(font.getlength(title)) + _MARGIN) + _MARGIN
    panel = Image.new("RGB", (width, top + size * _CELL + _MARGIN), _BRIGHT)
    draw = ImageDraw.Draw(panel)
    draw.text((left, _MARGIN), title, _DARK, font, anchor="la")
    for i, (label, row) in enumerate(zip(matrix.labels, matrix.cosines)):
        draw.text((left + (i + 0.5) * cell, top - _MARGIN / 2), label, _DARK, font, anchor="md")
        draw.text((left - _MARGIN / 2, top + (i + 0.5) * _CELL), label, _DARK, font, anchor="rm")
        for j, cosine in enumerate(row):
            x, y = left + j * cell, top + i * _CELL
            draw.rectangle((x, y, x + cell - 2, y + _CELL - 2), _colour(cosine))
            text = _BRIGHT if abs(cosine) > 0.6 else _DARK
            draw.text((x + cell / 2, y + _CELL / 2), f"{cosine:.2f}", text, font, anchor="mm")
    return panel


def _colour(cosine: float) -> tuple[int, ...]:
    return tuple(round(float(np.interp(cosine, (-1, 0, 1), channel))) for channel in _COLOURS.T)
