"""Configurations of the published CoDi and Versatile Diffusion."""

from __future__ import annotations

from .autoencoders import (
    AudioAutoencoderConfig,
    ImageAutoencoderConfig,
    TextAutoencoderConfig,
    VocoderConfig,
)
from .diffuser import DiffuserConfig, UNetConfig
from .encoders import ClapConfig, TextEncoderConfig, VisionEncoderConfig
from .model import CoDiConfig

CODI = CoDiConfig(
    name="codi",
    diffuser=DiffuserConfig(
        networks={
            "image": UNetConfig(in_channels=4, model_channels=320, temporal=True),
            "text": UNetConfig(in_channels=768, model_channels=320, text_positions=4),
            "audio": UNetConfig(in_channels=8, model_channels=192),
        },
        middle_as_first_skip=True,
    ),
    text_encoder=TextEncoderConfig(),
    image_encoder=VisionEncoderConfig(),
    audio_encoder=ClapConfig(),
    text_autoencoder=TextAutoencoderConfig(),
    image_autoencoder=ImageAutoencoderConfig(),
    audio_autoencoder=AudioAutoencoderConfig(released_processing=True, vocoder=VocoderConfig()),
)

_UNALIGNED = (False, False, False, False)
VERSATILE_DIFFUSION = CoDiConfig(
    name="versatile-diffusion",
    diffuser=DiffuserConfig(
        networks={
            "image": UNetConfig(in_channels=4, model_channels=320, connector=_UNALIGNED),
            "text": UNetConfig(in_channels=768, model_channels=320, connector=_UNALIGNED, text_positions=4),
        },
        contexts=("text", "image"),
    ),
    text_encoder=TextEncoderConfig(),
    image_encoder=VisionEncoderConfig(temporal=False),
    text_autoencoder=TextAutoencoderConfig(scale_factor=1.0, word_pieces=77, drop_words=False),
    image_autoencoder=ImageAutoencoderConfig(image_size=512),
)
