"""Versatile Diffusion's tools: pure functions on tensors, which need no model."""

from .colour import match_colour
from .editing import edit_text_latent, low_rank
from .focus import focus, focus_local

__all__ = ["edit_text_latent", "focus", "focus_local", "low_rank", "match_colour"]
