"""Prompt encoders: content of each modality -> one token in the space that all modalities share."""

from .text import TextEncoder

__all__ = ["TextEncoder"]
