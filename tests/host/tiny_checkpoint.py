"""Checkpoints with random weights, as small as the networks allow: CoDi's four modalities, and Versatile Diffusion."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

WORDS = ("one", "two", "three", "red", "blue", "star", "stars", ",", "slowly")


def tiny_config(backend):
    config = backend.config

    def network(channels: int, **more):
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
            **more,
        )

    return config.CoDiConfig(
        name="tiny",
        alignment_scale=1.5,
        diffuser=config.DiffuserConfig(
            networks={
                "image": network(4, temporal=True),
                "audio": network(8),
                # Narrower, the normalisation of a single text's vector would have groups of one value.
                "text": dataclasses.replace(network(24, text_positions=2), model_channels=64),
            },
            latent_means={
                "image": (0.2, -0.1, 0.0, 0.3),
                "video": (0.1, 0.3, -0.2, 0.0),
                "audio": (0.5, 0.0, -0.4, 0.1, 0.0, 0.2, -0.3, 0.1),
                "text": (0.5, -0.5) * 12,
            },
        ),
        text_encoder=config.TextEncoderConfig(width=64, layers=1, heads=2, embedding_dim=64, token_dim=8),
        image_encoder=config.VisionEncoderConfig(
            image_size=32, patch=16, width=32, layers=1, heads=2, mlp=32, embedding_dim=64, image_side=32, video_side=32
        ),
        audio_encoder=config.ClapConfig(
            width=8,
            depths=(1, 1),
            heads=(1, 2),
            image_size=64,
            embedding_dim=64,
            samples=8192,
            mel=config.MelConfig(n_fft=256, hop=128, f_min=50.0, floor=1e-10),
            classes=2,
        ),
        text_autoencoder=config.TextAutoencoderConfig(
            latent_dim=24,
            scale_factor=0.9,
            words=WORDS,
            greedy=True,
            encoder=config.TransformerConfig(len(WORDS) + 4, 16, width=16, hidden=16, layers=1, heads=2),
            decoder=config.TransformerConfig(len(WORDS) + 3, 32, width=16, hidden=16, layers=1, heads=2),
        ),
        image_autoencoder=config.ImageAutoencoderConfig(
            patch=2,
            channels=(16, 32, 32),
            layers_per_block=1,
            norm_groups=8,
            scale_factor=0.7,
            image_size=64,
            frames=4,
            frame_rate=6.25,
        ),
        audio_autoencoder=config.AudioAutoencoderConfig(
            patch=4, channels=(32, 32), layers_per_block=1, norm_groups=8, scale_factor=1.3, seconds=2.56
        ),
    )


def tiny_versatile_config(backend):
    config = tiny_config(backend)
    network = dataclasses.replace(
        config.diffuser.networks["text"], in_channels=4, text_positions=None, connector=(False, False)
    )
    networks = {"image": network, "text": dataclasses.replace(network, in_channels=24, text_positions=2)}
    return dataclasses.replace(
        config,
        name="tiny versatile",
        diffuser=backend.config.DiffuserConfig(networks=networks, contexts=("text", "image")),
        # Enough tokens for focus.
        image_encoder=dataclasses.replace(config.image_encoder, patch=4, temporal=False),
        audio_encoder=None,
        audio_autoencoder=None,
    )


def tiny_parts(backend, config) -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    diffuser = backend.diffuser.Diffuser(config.diffuser)
    for parameter in diffuser.parameters():
        # Layers that begin as zero would hide whether streams hear each other.
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    parts = {name: part.state_dict() for name, part in backend.parts.diffuser_parts(diffuser).items()}
    for name in backend.parts.part_names(config):
        if name not in parts:
            parts[name] = backend.parts.build(name, config).state_dict()
    return parts


def save_tiny(path: Path, backend, without: tuple[str, ...] = (), make_config=tiny_config) -> None:
    """Write a checkpoint; parts named in `without` are left out."""
    config = make_config(backend)
    parts = {name: part for name, part in tiny_parts(backend, config).items() if name not in without}
    backend.checkpoints.save_parts(path, config, parts)
