"""The shipped small Versatile Diffusion: its configuration and where its weights lie.

Its encoders and autoencoders are those of the small CoDi; what is its own are the networks and what these share.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..config import CoDiConfig, DiffuserConfig, UNetConfig
from . import mini

WEIGHTS = Path(__file__).parent / "vd_mini_weights"

# Beside the networks' own layers: transformers that both share, so that both need them at the same widths.
_IMAGE = dataclasses.replace(
    mini.CONFIG.diffuser.networks["image"],
    connector=(False, False),
    environment_time=None,
    temporal_connectors=0,
    temporal=False,
    temporal_norm="frames",
    clip_attention=UNetConfig.clip_attention,
)
_TEXT = UNetConfig(
    in_channels=64,
    model_channels=_IMAGE.model_channels,
    channel_mult=_IMAGE.channel_mult,
    num_res_blocks=_IMAGE.num_res_blocks,
    attention=_IMAGE.attention,
    connector=_IMAGE.connector,
    num_heads=_IMAGE.num_heads,
    context_dim=_IMAGE.context_dim,
    text_positions=2,
)

CONFIG: CoDiConfig = dataclasses.replace(
    mini.CONFIG,
    guidance=3.5,
    sampler="dpmpp_2m",
    steps=20,
    name="vd-mini",
    diffuser=DiffuserConfig(networks={"image": _IMAGE, "text": _TEXT}, contexts=("text", "image"), prediction="v"),
    image_encoder=dataclasses.replace(mini.CONFIG.image_encoder, temporal=False),
    audio_encoder=None,
    audio_autoencoder=None,
)
