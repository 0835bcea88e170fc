"""Prompt encoders: content of each modality -> one token in the space that all modalities share."""

from .audio import AudioEncoder
from .text import TextEncoder
from .vision import ImageEncoder

__all__ = ["AudioEncoder", "ImageEncoder", "TextEncoder"]
