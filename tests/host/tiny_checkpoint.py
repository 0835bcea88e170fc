"""A checkpoint with random weights, as small as the networks allow."""

from __future__ import annotations

from pathlib import Path

import torch


def tiny_config(backend):
    config = backend.config

    def network(channels: int):
        return config.UNetConfig(
            in_channels=channels,
            model_channels=32,
            channel_mult=(1, 2),
            num_res_blocks=(1, 1),
            attention=(True, True),
            connector=(True, True),
            num_heads=2,
            context_dim=64,
            environment_dim=64,
            environment_mult=(1, 2),
            environment_res_blocks=(1, 1),
        )

    return config.CoDiConfig(
        name="tiny",
        diffuser=config.DiffuserConfig(networks={"image": network(4), "audio": network(8)}),
        text_encoder=config.TextEncoderConfig(width=64, layers=1, heads=2, embedding_dim=64, token_dim=8),
        image_autoencoder=config.ImageAutoencoderConfig(
            patch=2, channels=(16, 32, 32), layers_per_block=1, norm_groups=8, scale_factor=0.7, image_size=64
        ),
        audio_autoencoder=config.AudioAutoencoderConfig(
            patch=4, channels=(32, 32), layers_per_block=1, norm_groups=8, scale_factor=1.3, seconds=2.56
        ),
    )


def tiny_parts(backend, config) -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    diffuser = backend.diffuser.Diffuser(config.diffuser)
    for parameter in diffuser.parameters():
        # Layers that begin as zero would hide whether streams hear each other.
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    parts = {f"diffuser.{name}": network.state_dict() for name, network in diffuser.networks.items()}
    parts["prompt_encoders.text"] = backend.prompts.TextEncoder(config.text_encoder).state_dict()
    parts["autoencoders.image"] = backend.autoencoders.ImageAutoencoder(config.image_autoencoder).state_dict()
    parts["autoencoders.audio"] = backend.autoencoders.AudioAutoencoder(config.audio_autoencoder).state_dict()
    return parts


def save_tiny(path: Path, backend, without: tuple[str, ...] = ()) -> None:
    """Write the checkpoint; parts named in `without` are left out."""
    config = tiny_config(backend)
    parts = {name: part for name, part in tiny_parts(backend, config).items() if name not in without}
    backend.checkpoints.save_parts(path, config, parts)
