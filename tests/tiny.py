"""Models with random weights, as small as the networks allow: their configurations, and how they are built and saved.

`two` has images and audio, `four` all modalities, and `versatile` is of Versatile Diffusion's kind. `hosted` and
`hosted_versatile` are somewhat larger: ComfyUI's tests use videos, longer texts and audio of the usual length.
"""

import dataclasses

import torch

from codi_backend.checkpoints.native import save_parts
from codi_backend.config import (
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
    VocoderConfig,
)
from codi_backend.config.published import VERSATILE_DIFFUSION
from codi_backend.pipeline import CoDi

WORDS = ("one", "two", "red", "blue", "star", "stars")
HOSTED_WORDS = ("one", "two", "three", "red", "blue", "star", "stars", ",", "slowly")
_IMAGE_MEANS, _VIDEO_MEANS = (0.2, -0.1, 0.0, 0.3), (0.1, 0.3, -0.2, 0.0)
_AUDIO_MEANS = (0.5, 0.0, -0.4, 0.1, 0.0, 0.2, -0.3, 0.1)


def two() -> CoDiConfig:
    """Image and audio, with prompts of text."""
    return CoDiConfig(
        name="tiny",
        diffuser=DiffuserConfig(
            networks={"image": _network(4), "audio": _network(8)},
            latent_means={"image": _IMAGE_MEANS, "audio": _AUDIO_MEANS},
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


def four() -> CoDiConfig:
    """All four modalities, with prompts of each."""
    base = two()
    image, audio = base.diffuser.networks.values()
    return dataclasses.replace(
        base,
        name="whole",
        diffuser=DiffuserConfig(
            networks={
                "image": dataclasses.replace(
                    image,
                    temporal=True,
                    environment_time="frames",
                    temporal_connectors=1,
                    clip_attention=(False, True),
                ),
                "audio": dataclasses.replace(audio, environment_time="rows", temporal_connectors=1),
                # Narrower, the normalisation of a single text's vector would have groups of one value.
                "text": dataclasses.replace(image, in_channels=16, model_channels=128, text_positions=2),
            },
            latent_means=base.diffuser.latent_means | {"video": _VIDEO_MEANS, "text": (0.5, -0.5) * 8},
        ),
        image_encoder=_image_encoder(32),
        audio_encoder=_audio_encoder(32),
        text_autoencoder=_text_autoencoder(16, WORDS),
        image_autoencoder=dataclasses.replace(base.image_autoencoder, frames=4, frame_rate=6.25),
    )


def versatile() -> CoDiConfig:
    """Versatile Diffusion's kind, as deep as the published networks, whose files name layers by numbers."""
    base = four()
    image = dataclasses.replace(
        VERSATILE_DIFFUSION.diffuser.networks["image"], model_channels=32, num_heads=2, context_dim=32
    )
    return dataclasses.replace(
        VERSATILE_DIFFUSION,
        diffuser=DiffuserConfig(
            networks={"image": image, "text": dataclasses.replace(image, in_channels=16, text_positions=4)},
            contexts=("text", "image"),
        ),
        text_encoder=dataclasses.replace(base.text_encoder, positions=12),
        image_encoder=dataclasses.replace(base.image_encoder, temporal=False, patch=4),
        text_autoencoder=dataclasses.replace(base.text_autoencoder, scale_factor=1.0),
        image_autoencoder=dataclasses.replace(two().image_autoencoder, patch=1),
    )


def hosted() -> CoDiConfig:
    """All four modalities, for tests in ComfyUI."""

    def network(channels: int, **options) -> UNetConfig:
        options = {"model_channels": 32} | options
        return dataclasses.replace(
            _network(channels),
            channel_mult=(1, 2),
            attention=(True, True),
            connector=(True, True),
            context_dim=64,
            environment_dim=64,
            environment_mult=(1, 2),
            **options,
        )

    return CoDiConfig(
        name="tiny",
        modality_guidance=1.5,
        diffuser=DiffuserConfig(
            networks={
                "image": network(4, temporal=True),
                "audio": network(8),
                # Narrower, the normalisation of a single text's vector would have groups of one value.
                "text": network(24, model_channels=64, text_positions=2),
            },
            latent_means={
                "image": _IMAGE_MEANS,
                "video": _VIDEO_MEANS,
                "audio": _AUDIO_MEANS,
                "text": (0.5, -0.5) * 12,
            },
        ),
        text_encoder=TextEncoderConfig(width=64, layers=1, heads=2, embedding_dim=64, token_dim=8),
        image_encoder=_image_encoder(64),
        audio_encoder=_audio_encoder(64),
        text_autoencoder=_text_autoencoder(24, HOSTED_WORDS),
        image_autoencoder=ImageAutoencoderConfig(
            patch=2,
            channels=(16, 32, 32),
            layers_per_block=1,
            norm_groups=8,
            scale_factor=0.7,
            image_size=64,
            frames=4,
            frame_rate=6.25,
        ),
        audio_autoencoder=AudioAutoencoderConfig(
            patch=4, channels=(32, 32), layers_per_block=1, norm_groups=8, scale_factor=1.3, seconds=2.56
        ),
    )


def hosted_versatile() -> CoDiConfig:
    """Versatile Diffusion's kind, for tests in ComfyUI."""
    base = hosted()
    network = dataclasses.replace(
        base.diffuser.networks["text"], in_channels=4, text_positions=None, connector=(False, False)
    )
    networks = {"image": network, "text": dataclasses.replace(network, in_channels=24, text_positions=2)}
    return dataclasses.replace(
        base,
        name="tiny versatile",
        diffuser=DiffuserConfig(networks=networks, contexts=("text", "image")),
        # Enough tokens for focus.
        image_encoder=dataclasses.replace(base.image_encoder, patch=4, temporal=False),
        audio_encoder=None,
        audio_autoencoder=None,
    )


def _network(channels: int) -> UNetConfig:
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


def _image_encoder(embedding_dim: int) -> VisionEncoderConfig:
    return VisionEncoderConfig(
        image_size=32,
        patch=16,
        width=32,
        layers=1,
        heads=2,
        mlp=32,
        embedding_dim=embedding_dim,
        image_side=32,
        video_side=32,
    )


def _audio_encoder(embedding_dim: int) -> ClapConfig:
    return ClapConfig(
        width=8,
        depths=(1, 1),
        heads=(1, 2),
        image_size=64,
        embedding_dim=embedding_dim,
        samples=8192,
        mel=MelConfig(n_fft=256, hop=128, f_min=50.0, floor=1e-10),
        classes=2,
    )


def _text_autoencoder(latent_dim: int, words: tuple[str, ...]) -> TextAutoencoderConfig:
    size = {"width": 16, "hidden": 16, "layers": 1, "heads": 2}
    return TextAutoencoderConfig(
        latent_dim=latent_dim,
        scale_factor=0.9,
        words=words,
        greedy=True,
        encoder=TransformerConfig(len(words) + 4, 16, **size),
        decoder=TransformerConfig(len(words) + 3, 32, **size),
    )


CONFIG, FOUR, VERSATILE = two(), four(), versatile()
VOCODER = VocoderConfig(channels=16, rates=(5, 4, 4, 2), kernels=(11, 8, 8, 4), block_kernels=(3,), dilations=(1, 3))


def build(config=CONFIG):
    """A model with random weights, the same ones every time."""
    torch.manual_seed(0)
    codi = CoDi(config)
    for parameter in codi.diffuser.parameters():
        # Layers that begin as zero would hide whether streams attend to each other.
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
