"""Prompt encoders: content of each modality -> one token in a shared embedding space."""

from .audio import AudioEncoder
from .text import TextEncoder
from .vision import ImageEncoder

__all__ = ["AudioEncoder", "ImageEncoder", "TextEncoder"]
