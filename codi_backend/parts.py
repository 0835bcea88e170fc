"""The parts of a model, which checkpoints store and load separately, and how each is built."""

from __future__ import annotations

from torch import nn

from .autoencoders import AudioAutoencoder, ImageAutoencoder, TextAutoencoder
from .config import CoDiConfig
from .diffuser import Diffuser
from .prompts import AudioEncoder, ImageEncoder, TextEncoder

# Part, its field of CoDiConfig, and its class; beside these, every diffuser network is a part.
_KINDS = {
    "prompt_encoders.text": ("text_encoder", TextEncoder),
    "prompt_encoders.image": ("image_encoder", ImageEncoder),
    "prompt_encoders.audio": ("audio_encoder", AudioEncoder),
    "autoencoders.text": ("text_autoencoder", TextAutoencoder),
    "autoencoders.image": ("image_autoencoder", ImageAutoencoder),
    "autoencoders.audio": ("audio_autoencoder", AudioAutoencoder),
}
FIELDS = {part: field for part, (field, _) in _KINDS.items()}


def part_names(config: CoDiConfig) -> tuple[str, ...]:
    """The parts that a model of this configuration has."""
    networks = tuple(f"diffuser.{name}" for name in config.diffuser.networks)
    return networks + tuple(part for part, field in FIELDS.items() if getattr(config, field) is not None)


def build(part: str, config: CoDiConfig) -> nn.Module:
    """Make one part, with random weights."""
    if part.startswith("diffuser."):
        name = part.removeprefix("diffuser.")
        return Diffuser(config.diffuser.only({name})).networks[name]
    field, kind = _KINDS[part]
    return kind(getattr(config, field))
