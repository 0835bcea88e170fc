"""CoDi's published checkpoints: configuration, files, and their names for our parameters (SPEC section 0)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping

from torch import Tensor

from ..config import CoDiConfig
from ..config.published import CODI as CONFIG
from . import autoencoder_names, diffuser_names
from . import encoder_names as prompt_names
from .parts import FIELDS

SYSTEM = "CoDi"
EDITION = "published"


ENCODERS = "CoDi_encoders.pth"
FILES = {
    "diffuser.image": "CoDi_video_diffuser_8frames.pth",
    "diffuser.text": "CoDi_text_diffuser.pth",
    "diffuser.audio": "CoDi_audio_diffuser_m.pth",
    "prompt_encoders.text": ENCODERS,
    "prompt_encoders.image": ENCODERS,
    "prompt_encoders.audio": ENCODERS,
    "autoencoders.text": ENCODERS,
    "autoencoders.image": ENCODERS,
    "autoencoders.audio": ENCODERS,
}
PREFIXES = {
    "model.diffusion_model.unet_image.": "diffuser.image",
    "model.diffusion_model.unet_text.": "diffuser.text",
    "model.diffusion_model.unet_audio.": "diffuser.audio",
    "clip.model.text_": "prompt_encoders.text",
    "clip.model.": "prompt_encoders.image",
    "clap.model.": "prompt_encoders.audio",
    "optimus.": "autoencoders.text",
    "autokl.": "autoencoders.image",
    "audioldm.": "autoencoders.audio",
}

# Prefixes of tensor names that only this system has.
OWN = re.compile(
    r"model\.diffusion_model\.unet_(audio\.|\w+\.(time_embed|connecters_|\w+_connecters_))|clap\.|audioldm\."
    r"|\S+\.temporal_(self_)?attn\."
)
_ENVIRONMENT_HEAD = re.compile(r"environment_encoder\.\d+\.2\.weight$")  # the last stage's convolution


def part_of(key: str) -> str | None:
    """The part that a published key belongs to; None for schedule buffers and unknown tensors."""
    return next((part for prefix, part in PREFIXES.items() if key.startswith(prefix)), None)


def from_published(part: str, state: Mapping[str, Tensor], config: CoDiConfig) -> dict[str, Tensor]:
    """Convert the tensors of a part from their full published keys to our state dict. Constants are left out."""
    if part.startswith("prompt_encoders."):
        named = {key: prompt_names.from_reference(key) for key in state}
        return {name[1]: state[key] for key, name in named.items() if name is not None}
    prefix = _prefix(part)
    short = {key.removeprefix(prefix): value for key, value in state.items()}
    if part.startswith("diffuser."):
        return {diffuser_names.from_reference(key): value for key, value in short.items()}
    return autoencoder_names.from_reference(getattr(config, FIELDS[part]), short)


def to_published(part: str, state: Mapping[str, Tensor], config: CoDiConfig) -> dict[str, Tensor]:
    """Convert a part's state dict to the full published keys, with the constants that a published file holds."""
    if part.startswith("diffuser."):
        return {_prefix(part) + diffuser_names.to_reference(key): value for key, value in state.items()}
    field = getattr(config, FIELDS[part])
    if part.startswith("prompt_encoders."):
        encoder = part.removeprefix("prompt_encoders.")
        published = {prompt_names.to_reference(encoder, key): value for key, value in state.items()}
        device = next(iter(state.values())).device
        return published | prompt_names.published_buffers(field, device)
    return {_prefix(part) + key: value for key, value in autoencoder_names.to_reference(field, state).items()}


def unaligned(config: CoDiConfig) -> list[str]:
    """Names of the networks without latent alignment, as in the first edition."""
    return [name for name, network in config.diffuser.networks.items() if not network.aligned]


def edition(config: CoDiConfig) -> str:
    """Name of the edition that a configuration belongs to."""
    return f"{EDITION}, without latent alignment" if unaligned(config) else EDITION


def configure(shapes: Mapping[str, Mapping[str, Collection[int]]], base: CoDiConfig = CONFIG) -> CoDiConfig:
    """The published model's configuration, reduced to the parts that are present.

    Shapes determine the edition: the first edition's networks have no environment encoders and connectors, and the
    width of environment embeddings changed between editions.

    Parameters
    ----------
    shapes : dict of str to dict of str to shape
        For each part, the shapes of its tensors under our names.
    """
    networks = {}
    for name, network in base.diffuser.networks.items():
        part = shapes.get(f"diffuser.{name}")
        if part is None:
            continue
        head = next((shape for key, shape in part.items() if _ENVIRONMENT_HEAD.match(key)), None)
        if head is None:
            network = dataclasses.replace(network, connector=tuple(False for _ in network.connector))
        else:
            network = dataclasses.replace(network, environment_dim=tuple(head)[0])
        networks[name] = network
    absent = {field: None for part, field in FIELDS.items() if part not in shapes}
    return dataclasses.replace(base, diffuser=dataclasses.replace(base.diffuser, networks=networks), **absent)


def _prefix(part: str) -> str:
    return next(prefix for prefix, name in PREFIXES.items() if name == part)
