"""Configurations of the original project's YAML files, read as ours."""

from __future__ import annotations

from typing import Any

from .config import DiffuserConfig, UNetConfig


def diffuser_from_reference(config: dict[str, Any]) -> DiffuserConfig:
    """Read `unet_image_cfg`, `unet_text_cfg` and `unet_audio_cfg`, any of which may be absent (SPEC section 2.1).

    The result has the released code's quirks on, which the published weights need.
    """
    networks = {}
    for name in ("image", "text", "audio"):
        if (part := config.get(f"unet_{name}_cfg")) is not None:
            networks[name] = _unet(name, part["args"])
    return DiffuserConfig(networks=networks, middle_as_first_skip=True)


def _unet(name: str, args: dict[str, Any]) -> UNetConfig:
    positions = {*args.get("second_dim", ()), *args.get("second_dim_connector", ())}
    if len(positions) > 1:
        raise ValueError(f"unet_{name}_cfg gives the levels different second_dim; only one value for all is supported.")
    if args.get("output_channels", args["input_channels"]) != args["input_channels"]:
        raise ValueError(f"unet_{name}_cfg has different input_channels and output_channels; make them equal.")
    return UNetConfig(
        in_channels=args["input_channels"],
        model_channels=args["model_channels"],
        channel_mult=tuple(args["channel_mult"]),
        num_res_blocks=tuple(args["num_noattn_blocks"]),
        attention=tuple(args["with_attn"]),
        connector=tuple(args["with_connector"]),
        num_heads=args["num_heads"],
        context_dim=args["context_dim"],
        environment_dim=args["connector_output_channel"],
        environment_mult=tuple(args["channel_mult_connector"]),
        environment_res_blocks=tuple(args["num_noattn_blocks_connector"]),
        temporal=bool(args.get("use_video_architecture", False)),
        text_positions=positions.pop() if positions else None,
    )
