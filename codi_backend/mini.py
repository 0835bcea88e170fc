"""The shipped small model: its configuration and where its weights lie."""

from __future__ import annotations

from pathlib import Path

from .config import (
    AudioAutoencoderConfig,
    CoDiConfig,
    DiffuserConfig,
    ImageAutoencoderConfig,
    MelConfig,
    TextEncoderConfig,
    UNetConfig,
)

WEIGHTS = Path(__file__).parent / "mini_weights"

CONFIG = CoDiConfig(
    name="mini",
    guidance=3.5,
    diffuser=DiffuserConfig(
        networks={
            "image": UNetConfig(
                in_channels=4,
                model_channels=64,
                channel_mult=(1, 2),
                num_res_blocks=(1, 1),
                attention=(True, True),
                connector=(False, True),
                num_heads=4,
                context_dim=128,
                environment_dim=128,
                environment_mult=(1, 1),
                environment_res_blocks=(1, 1),
            ),
            "audio": UNetConfig(
                in_channels=8,
                model_channels=48,
                channel_mult=(1, 2, 2),
                num_res_blocks=(1, 1, 1),
                attention=(False, True, True),
                connector=(False, True, False),
                num_heads=4,
                context_dim=128,
                environment_dim=128,
                environment_mult=(1, 1, 1),
                environment_res_blocks=(1, 1, 1),
            ),
        }
    ),
    text_encoder=TextEncoderConfig(width=128, layers=2, heads=4, embedding_dim=128, token_dim=12),
    image_autoencoder=ImageAutoencoderConfig(
        latent_channels=4, patch=2, channels=(32, 64, 96), layers_per_block=1, norm_groups=8, image_size=64
    ),
    audio_autoencoder=AudioAutoencoderConfig(
        latent_channels=8,
        patch=4,
        channels=(64, 96),
        layers_per_block=1,
        norm_groups=8,
        seconds=2.56,
        mel=MelConfig(floor=3e-3),
        mel_mean=-5.0,
        mel_std=2.0,
    ),
)
