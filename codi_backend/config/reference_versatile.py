"""Configurations of Versatile Diffusion's original project, read as ours (SPEC_VD sections 1 and 6)."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import reference_codi as codi
from .diffuser import DiffuserConfig, UNetConfig
from .model import CoDiConfig
from .published import VERSATILE_DIFFUSION


def is_versatile(config: dict[str, Any]) -> bool:
    """Whether a configuration describes this system, by its networks."""
    return bool(_networks(config))


def from_reference(config: dict[str, Any]) -> CoDiConfig:
    """Read a model's configuration; parts that are absent, or described in words, do not exist in the result.

    Parameters
    ----------
    config : dict
        `diffuser` with `image` and `text` (or these two), and any of `clip`, `autokl`, `optimus` and `output_dim`, the
        size of images.
    """
    text_encoder = image_encoder = text_autoencoder = image_autoencoder = None
    if isinstance(config.get("clip"), dict):
        text_encoder = codi.text_encoder_from_reference(config["clip"])
        image_encoder = dataclasses.replace(codi.vision_encoder_from_reference(config["clip"]), temporal=False)
    if isinstance(config.get("optimus"), dict):
        usual = VERSATILE_DIFFUSION.text_autoencoder
        text_autoencoder = dataclasses.replace(
            codi.text_autoencoder_from_reference(config["optimus"]),
            scale_factor=usual.scale_factor,
            word_pieces=usual.word_pieces,
            drop_words=usual.drop_words,
        )
    if isinstance(config.get("autokl"), dict):
        size = config.get("output_dim", [VERSATILE_DIFFUSION.image_autoencoder.image_size])[0]
        image_autoencoder = dataclasses.replace(
            codi.image_autoencoder_from_reference(config["autokl"]), image_size=size
        )
    return CoDiConfig(
        name=VERSATILE_DIFFUSION.name,
        diffuser=diffuser_from_reference(config),
        text_encoder=text_encoder,
        image_encoder=image_encoder,
        text_autoencoder=text_autoencoder,
        image_autoencoder=image_autoencoder,
    )


def diffuser_from_reference(config: dict[str, Any]) -> DiffuserConfig:
    """Read the networks of `image` and `text`, each with its `args`; they share layers for both kinds of context."""
    networks = {name: _unet(network["args"]) for name, network in _networks(config).items()}
    return DiffuserConfig(networks=networks, contexts=tuple(sorted(networks, reverse=True)))


def _networks(config: dict[str, Any]) -> dict[str, Any]:
    networks = config.get("diffuser", config)
    return {
        name: networks[name]
        for name in ("image", "text")
        if isinstance(networks.get(name), dict) and str(networks[name].get("type", "")).endswith("_next")
    }


def _unet(args: dict[str, Any]) -> UNetConfig:
    mult = tuple(args["channel_mult"])
    # For images, the factors of size with transformers; for texts, one flag per level.
    attention = args.get("with_attn") or [2**level in args["attention_resolutions"] for level in range(len(mult))]
    positions = set(args.get("second_dim", ()))
    if len(positions) > 1:
        raise ValueError("The text network gives its levels different second_dim; only one value for all is supported.")
    return UNetConfig(
        in_channels=args["in_channels" if "in_channels" in args else "input_channels"],
        model_channels=args["model_channels"],
        channel_mult=mult,
        num_res_blocks=tuple(args["num_noattn_blocks" if "num_noattn_blocks" in args else "num_res_blocks"]),
        attention=tuple(attention),
        connector=(False,) * len(mult),
        num_heads=args["num_heads"],
        context_dim=args["context_dim"],
        text_positions=positions.pop() if positions else None,
    )
