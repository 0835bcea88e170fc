"""Configurations: plain dataclasses, stored as JSON."""

from .autoencoders import (
    AudioAutoencoderConfig,
    ImageAutoencoderConfig,
    MelConfig,
    TextAutoencoderConfig,
    TransformerConfig,
    VocoderConfig,
)
from .diffuser import DiffuserConfig, UNetConfig
from .encoders import ClapConfig, TextEncoderConfig, VisionEncoderConfig
from .model import CoDiConfig
from .reference import from_reference

__all__ = [
    "AudioAutoencoderConfig",
    "ClapConfig",
    "CoDiConfig",
    "DiffuserConfig",
    "ImageAutoencoderConfig",
    "MelConfig",
    "TextAutoencoderConfig",
    "TextEncoderConfig",
    "TransformerConfig",
    "UNetConfig",
    "VisionEncoderConfig",
    "VocoderConfig",
]

CoDiConfig.from_reference = staticmethod(from_reference)
