"""The parts of a model, which checkpoints store and load separately, and their construction."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..config import CoDiConfig
from ..modalities import modality
from ..models.autoencoders import AudioAutoencoder, ImageAutoencoder, TextAutoencoder
from ..models.diffuser import Diffuser
from ..models.encoders import AudioEncoder, ImageEncoder, TextEncoder

# Part, its field of CoDiConfig, and its class. Further parts are every diffuser network and, where networks share
# layers, the transformers for each kind of context and the time embedding.
_KINDS = {
    "prompt_encoders.text": ("text_encoder", TextEncoder),
    "prompt_encoders.image": ("image_encoder", ImageEncoder),
    "prompt_encoders.audio": ("audio_encoder", AudioEncoder),
    "autoencoders.text": ("text_autoencoder", TextAutoencoder),
    "autoencoders.image": ("image_autoencoder", ImageAutoencoder),
    "autoencoders.audio": ("audio_autoencoder", AudioAutoencoder),
}
FIELDS = {part: field for part, (field, _) in _KINDS.items()}
TIME = "diffuser.time"


def part_names(config: CoDiConfig) -> tuple[str, ...]:
    """Names of the parts of a model of this configuration."""
    names = [f"diffuser.{name}" for name in config.diffuser.networks]
    if names and config.diffuser.contexts:
        names += [*(f"contexts.{kind}" for kind in config.diffuser.contexts), TIME]
    return tuple(names + [part for part, field in FIELDS.items() if getattr(config, field) is not None])


def needed_parts(prompts: Collection[str], streams: Collection[str], config: CoDiConfig) -> set[str]:
    """Names of the parts that encode prompts of some modalities, and generate or hold some streams."""
    networks = {modality(name).network for name in streams}
    kinds = {modality(name).network for name in prompts}
    shared = {f"contexts.{kind}" for kind in kinds} | {TIME} if config.diffuser.contexts else set()
    return (
        {f"prompt_encoders.{kind}" for kind in kinds}
        | shared
        | {f"{group}.{network}" for group in ("diffuser", "autoencoders") for network in networks}
    )


def diffuser_parts(diffuser: Diffuser) -> dict[str, nn.Module]:
    """The parts of a diffuser, by name."""
    parts: dict[str, nn.Module] = {f"diffuser.{name}": network for name, network in diffuser.networks.items()}
    parts |= {f"contexts.{kind}": layers for kind, layers in diffuser.context_sets.items()}
    return parts if diffuser.time_embed is None else parts | {TIME: diffuser.time_embed}


@contextmanager
def on_meta(what: str) -> Iterator[None]:
    """Build networks without memory for weights inside this context; `ValueError` about `what` if that fails."""
    try:
        with torch.device("meta"):
            yield
    except Exception as error:  # layers raise many types for sizes that do not fit
        reason = (str(error) or type(error).__name__).split("\n", 1)[0]
        raise ValueError(
            f"The configuration of {what} fits no network ({reason}): it is damaged, or of another program."
        ) from error


def build(part: str, config: CoDiConfig) -> nn.Module:
    """Build one part, with random weights."""
    if part in FIELDS:
        field, kind = _KINDS[part]
        return kind(getattr(config, field))
    group, name = part.split(".")
    # Only what the part needs is built; any network gives the form of the shared layers.
    networks = {name} if group == "diffuser" and part != TIME else set(list(config.diffuser.networks)[:1])
    return diffuser_parts(Diffuser(config.diffuser.only(networks, {name} if group == "contexts" else None)))[part]
