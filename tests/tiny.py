"""A model with random weights, as small as the networks allow."""

import torch

from codi_backend.checkpoints import save_parts
from codi_backend.config import (
    AudioAutoencoderConfig,
    CoDiConfig,
    DiffuserConfig,
    ImageAutoencoderConfig,
    MelConfig,
    TextEncoderConfig,
    UNetConfig,
)
from codi_backend.model import CoDi


def _network(channels):
    return UNetConfig(
        in_channels=channels,
        model_channels=32,
        channel_mult=(1, 1),
        num_res_blocks=(1, 1),
        attention=(False, True),
        connector=(False, True),
        num_heads=2,
        context_dim=32,
        environment_dim=32,
        environment_mult=(1, 1),
        environment_res_blocks=(1, 1),
    )


CONFIG = CoDiConfig(
    name="tiny",
    diffuser=DiffuserConfig(
        networks={"image": _network(4), "audio": _network(8)},
        latent_means={"image": (0.2, -0.1, 0.0, 0.3), "audio": (0.5, 0.0, -0.4, 0.1, 0.0, 0.2, -0.3, 0.1)},
    ),
    text_encoder=TextEncoderConfig(width=32, layers=1, heads=2, embedding_dim=32, token_dim=4),
    image_autoencoder=ImageAutoencoderConfig(
        patch=2, channels=(8, 8, 16), layers_per_block=1, norm_groups=8, scale_factor=0.7, image_size=64
    ),
    audio_autoencoder=AudioAutoencoderConfig(
        patch=4,
        channels=(8, 16),
        layers_per_block=1,
        norm_groups=8,
        scale_factor=1.3,
        seconds=0.64,
        mel=MelConfig(floor=3e-3),
        mel_mean=-5.0,
        mel_std=2.0,
    ),
)


def build(config=CONFIG):
    torch.manual_seed(0)
    codi = CoDi(config)
    for parameter in codi.diffuser.parameters():
        # Layers that begin as zero would hide whether streams hear each other.
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return codi


def states(codi):
    """A copy of the weights of every part."""
    return {name: {k: v.clone() for k, v in part.state_dict().items()} for name, part in codi.parts().items()}


def save(path, codi, parts=None, **options):
    """Write all parts of a model, or those named."""
    save_parts(path, codi.config, {name: states(codi)[name] for name in parts or codi.parts()}, **options)
    return path


def changed(before, after):
    """Names of the tensors that differ."""
    return {name for name in before if not torch.equal(before[name], after[name])}
