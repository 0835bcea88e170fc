"""Configurations of the original projects' YAML files, read as ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import reference_versatile
from .model import CoDiConfig
from .reference_codi import (
    audio_autoencoder_from_reference,
    clap_from_reference,
    diffuser_from_reference,
    image_autoencoder_from_reference,
    text_autoencoder_from_reference,
    text_encoder_from_reference,
    vision_encoder_from_reference,
)


def from_reference(config: dict[str, Any]) -> CoDiConfig:
    """Read a model's configuration; parts that are absent do not exist in the result.

    Parameters
    ----------
    config : dict
        Any of `unet` (or its contents, see `diffuser_from_reference`), `clip`, `clap`, `optimus`, `autokl`, `audioldm`
        and `hifigan_initial_channel`; or the configuration of one of these alone; or a file of the reference vectors,
        which holds one of those under `config` or `small_config`. Versatile Diffusion's are recognised by their
        networks, see `reference_versatile`.
    """
    if "small_config" in config:
        config = config["small_config"]
    elif "config" in config and "symbol" not in config["config"]:
        config = config["config"]
    if reference_versatile.is_versatile(config):
        return reference_versatile.from_reference(config)
    if "symbol" in config or "symbol" in config.get("config", ()):
        config = {"optimus": config if "config" in config else {"config": config}}
    elif "projection_dim" in config:
        config = {"clip": config}
    elif "depths" in config:
        config = {"clap": config}
    elif "ddconfig" in config:
        config = {"audioldm" if "hifigan" in config else "autokl": config}
    audioldm = config.get("audioldm")
    if audioldm and "hifigan_initial_channel" in config:
        audioldm = {**audioldm, "hifigan": {"upsample_initial_channel": config["hifigan_initial_channel"]}}

    def read(reader: Callable[[dict[str, Any]], Any], part: dict[str, Any] | None) -> Any:
        return reader(part) if part else None

    return CoDiConfig(
        diffuser=diffuser_from_reference(config.get("unet", config)),
        text_encoder=read(text_encoder_from_reference, config.get("clip")),
        image_encoder=read(vision_encoder_from_reference, config.get("clip")),
        audio_encoder=read(clap_from_reference, config.get("clap")),
        text_autoencoder=read(text_autoencoder_from_reference, config.get("optimus")),
        image_autoencoder=read(image_autoencoder_from_reference, config.get("autokl")),
        audio_autoencoder=read(audio_autoencoder_from_reference, audioldm),
    )
