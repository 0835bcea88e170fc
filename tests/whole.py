"""The tiny model with all four modalities, and with encoders for prompts of each."""

import dataclasses

from tiny import CONFIG as TWO
from tiny import build

from codi_backend.config import (
    ClapConfig,
    DiffuserConfig,
    MelConfig,
    TextAutoencoderConfig,
    TransformerConfig,
    VisionEncoderConfig,
)

WORDS = ("one", "two", "red", "blue", "star", "stars")
_NETWORKS = TWO.diffuser.networks
CONFIG = dataclasses.replace(
    TWO,
    name="whole",
    diffuser=DiffuserConfig(
        networks={
            "image": dataclasses.replace(
                _NETWORKS["image"],
                temporal=True,
                environment_time="frames",
                temporal_connectors=1,
                clip_attention=(False, True),
            ),
            "audio": dataclasses.replace(_NETWORKS["audio"], environment_time="rows", temporal_connectors=1),
            # Narrower, the normalisation of a single text's vector would have groups of one value.
            "text": dataclasses.replace(_NETWORKS["image"], in_channels=16, model_channels=128, text_positions=2),
        },
        latent_means=TWO.diffuser.latent_means | {"video": (0.1, 0.3, -0.2, 0.0), "text": (0.5, -0.5) * 8},
    ),
    image_encoder=VisionEncoderConfig(
        image_size=32, patch=16, width=32, layers=1, heads=2, mlp=32, embedding_dim=32, image_side=32, video_side=32
    ),
    audio_encoder=ClapConfig(
        width=8,
        depths=(1, 1),
        heads=(1, 2),
        image_size=64,
        embedding_dim=32,
        samples=8192,
        mel=MelConfig(n_fft=256, hop=128, f_min=50.0, floor=1e-10),
        classes=2,
    ),
    text_autoencoder=TextAutoencoderConfig(
        latent_dim=16,
        scale_factor=0.9,
        words=WORDS,
        greedy=True,
        encoder=TransformerConfig(len(WORDS) + 4, 16, width=16, hidden=16, layers=1, heads=2),
        decoder=TransformerConfig(len(WORDS) + 3, 32, width=16, hidden=16, layers=1, heads=2),
    ),
    image_autoencoder=dataclasses.replace(TWO.image_autoencoder, frames=4, frame_rate=6.25),
)


def build_whole():
    return build(CONFIG)
