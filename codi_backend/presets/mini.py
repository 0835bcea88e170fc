"""The shipped small model: its configuration and where its weights lie."""

from __future__ import annotations

from pathlib import Path

from ..config import (
    AudioAutoencoderConfig,
    ClapConfig,
    CoDiConfig,
    DiffuserConfig,
    ImageAutoencoderConfig,
    MelConfig,
    TextAutoencoderConfig,
    TextEncoderConfig,
    TransformerConfig,
    UNetConfig,
    VisionEncoderConfig,
)
from ..data.captions import caption_words
from ..models.autoencoders.words import DECODER_SPECIAL, ENCODER_SPECIAL

_WORDS = caption_words()

WEIGHTS = Path(__file__).parent / "mini_weights"
COUPLER = Path(__file__).parent / "mini_coupler.safetensors"
"""The built-in coupler, of this model's latents."""

CONFIG = CoDiConfig(
    name="mini",
    guidance=2.5,
    modality_guidance=1.8,
    auxiliary_streams={"video": ("audio",)},
    num_candidates=6,
    sampler="dpmpp_2m_sde",
    steps=30,
    diffuser=DiffuserConfig(
        prediction="v",
        networks={
            "image": UNetConfig(
                in_channels=4,
                model_channels=64,
                channel_mult=(1, 2),
                num_res_blocks=(1, 1),
                attention=(True, True),
                connector=(True, True),
                num_heads=4,
                context_dim=128,
                environment_dim=128,
                environment_mult=(1, 2),
                environment_res_blocks=(1, 2),
                environment_time="frames",
                temporal_connectors=2,
                temporal=True,
                temporal_norm="channels",
                clip_attention=(False, True),
            ),
            "audio": UNetConfig(
                in_channels=8,
                model_channels=48,
                channel_mult=(1, 2, 2),
                num_res_blocks=(1, 1, 1),
                attention=(False, True, True),
                connector=(True, True, True),
                num_heads=4,
                context_dim=128,
                environment_dim=128,
                environment_mult=(1, 2),
                environment_res_blocks=(1, 2),
                environment_time="rows",
                temporal_connectors=2,
            ),
            "text": UNetConfig(
                in_channels=64,
                model_channels=64,
                channel_mult=(1, 1),
                num_res_blocks=(1, 1),
                attention=(True, True),
                connector=(False, True),
                num_heads=4,
                context_dim=128,
                environment_dim=128,
                environment_mult=(1, 1),
                environment_res_blocks=(1, 1),
                text_positions=4,
            ),
        },
    ),
    text_encoder=TextEncoderConfig(width=128, layers=2, heads=4, embedding_dim=128, token_dim=12),
    image_encoder=VisionEncoderConfig(
        image_size=64,
        patch=8,
        width=128,
        layers=4,
        heads=4,
        mlp=256,
        embedding_dim=128,
        image_side=64,
        video_side=64,
        frames=8,
    ),
    audio_encoder=ClapConfig(
        width=64,
        depths=(2, 2),
        heads=(4, 8),
        image_size=128,
        patch=8,
        embedding_dim=128,
        samples=40960,
        mel=MelConfig(f_min=50.0, floor=1e-10),
        classes=1,
    ),
    text_autoencoder=TextAutoencoderConfig(
        latent_dim=64,
        words=_WORDS,
        greedy=True,
        encoder=TransformerConfig(len(_WORDS) + ENCODER_SPECIAL, 32, width=128, hidden=256, layers=2, heads=4),
        decoder=TransformerConfig(len(_WORDS) + DECODER_SPECIAL, 32, width=128, hidden=256, layers=2, heads=4),
    ),
    image_autoencoder=ImageAutoencoderConfig(
        latent_channels=4,
        patch=2,
        channels=(32, 64, 96),
        layers_per_block=1,
        norm_groups=8,
        image_size=64,
        frames=16,
        frame_rate=6.25,
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
