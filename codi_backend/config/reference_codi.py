"""Configurations of CoDi's parts in the original project's terms, read as ours (SPEC section 2.1)."""

from __future__ import annotations

from typing import Any

from .autoencoders import (
    AudioAutoencoderConfig,
    ImageAutoencoderConfig,
    MelConfig,
    TextAutoencoderConfig,
    TransformerConfig,
    VocoderConfig,
)
from .diffuser import DiffuserConfig, UNetConfig
from .encoders import ClapConfig, TextEncoderConfig, VisionEncoderConfig


def diffuser_from_reference(config: dict[str, Any]) -> DiffuserConfig:
    """Read `unet_image_cfg`, `unet_text_cfg` and `unet_audio_cfg`, any of which may be absent (SPEC section 2.1).

    The result enables the released code's quirks, which the published weights need.
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


def text_encoder_from_reference(config: dict[str, Any]) -> TextEncoderConfig:
    """Read the configuration of CLIP, with `text`, `vision` and `projection_dim` (SPEC section 3.1)."""
    text = config["text"]
    return TextEncoderConfig(
        vocab_size=text.get("vocab_size", 49408),
        positions=text.get("max_position_embeddings", 77),
        width=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        embedding_dim=config["projection_dim"],
        mlp=text["intermediate_size"],
    )


def vision_encoder_from_reference(config: dict[str, Any]) -> VisionEncoderConfig:
    """Read the same configuration for the image encoder, which the original always gives temporal layers."""
    vision = config["vision"]
    return VisionEncoderConfig(
        image_size=vision.get("image_size", 224),
        patch=vision.get("patch_size", 14),
        width=vision["hidden_size"],
        layers=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        mlp=vision["intermediate_size"],
        embedding_dim=config["projection_dim"],
        temporal=True,
    )


def clap_from_reference(config: dict[str, Any]) -> ClapConfig:
    """Read the shape of CLAP's audio encoder (SPEC section 3.2); its spectrograms are always the published ones."""
    return ClapConfig(
        width=config["embed_dim"],
        depths=tuple(config["depths"]),
        heads=tuple(config["num_heads"]),
        window=config.get("window_size", 8),
        embedding_dim=config["joint_embed_shape" if "joint_embed_shape" in config else "joint"],
    )


def image_autoencoder_from_reference(config: dict[str, Any]) -> ImageAutoencoderConfig:
    """Read the image KL-VAE's `ddconfig` (SPEC section 5.1), or its contents, and `scale_factor` if given."""
    return ImageAutoencoderConfig(**_kl(config, 4), **_given(config, scale_factor="scale_factor"))


def audio_autoencoder_from_reference(config: dict[str, Any]) -> AudioAutoencoderConfig:
    """Read the mel VAE's `ddconfig` (SPEC section 5.2), or its contents, and the vocoder's `hifigan`.

    `hifigan`, `stft`, `time` and `scale_factor` may be absent. The result enables the released processing, in which
    a second of `time` is 102.4 frames.
    """
    stft, hifigan = config.get("stft", {}), config.get("hifigan", {})
    mel = MelConfig(
        **_given(stft, n_fft="filter_length", hop="hop", bands="n_mel", sample_rate="sr", f_min="fmin", f_max="fmax")
    )
    return AudioAutoencoderConfig(
        **_kl(config, 8),
        **_given(config, scale_factor="scale_factor"),
        seconds=int(config.get("time", 10.0) * 102.4) * mel.hop / mel.sample_rate,
        mel=mel,
        released_processing=True,
        vocoder=_vocoder(hifigan),
    )


def text_autoencoder_from_reference(config: dict[str, Any]) -> TextAutoencoderConfig:
    """Read the `config` of Optimus (SPEC section 5.3), or `encoder`, `decoder` and `latent`; `scale_factor` if any."""
    encoder, decoder, latent_dim = config.get("encoder"), config.get("decoder"), config.get("latent")
    if "config" in config:
        args = config["config"]["args"]
        encoder, decoder = (args[name]["args"]["config"] for name in ("encoder", "decoder"))
        latent_dim = args["args"]["latent_size"]
    return TextAutoencoderConfig(
        latent_dim=latent_dim,
        **_given(config, scale_factor="scale_factor"),
        encoder=TransformerConfig(
            vocab_size=encoder.get("vocab_size", 28996),
            positions=encoder.get("max_position_embeddings", 512),
            width=encoder["hidden_size"],
            hidden=encoder["intermediate_size"],
            layers=encoder["num_hidden_layers" if "num_hidden_layers" in encoder else "layers"],
            heads=encoder["num_attention_heads" if "num_attention_heads" in encoder else "heads"],
        ),
        decoder=TransformerConfig(
            vocab_size=decoder.get("vocab_size", 50260),
            positions=decoder["n_ctx"],
            width=decoder["n_embd"],
            hidden=4 * decoder["n_embd"],
            layers=decoder["n_layer"],
            heads=decoder["n_head"],
        ),
    )


def _given(config: dict[str, Any], **names: str) -> dict[str, Any]:
    """Our fields whose names are in `config`; lists become tuples."""
    values = {ours: config[theirs] for ours, theirs in names.items() if theirs in config}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _kl(config: dict[str, Any], latent_channels: int) -> dict[str, Any]:
    args = config.get("ddconfig", config)
    latent_channels = args.get("z_channels", latent_channels)
    if config.get("embed_dim", latent_channels) != latent_channels or args.get("attn_resolutions"):
        raise ValueError("An autoencoder with embed_dim unlike z_channels, or with attn_resolutions, is not supported.")
    return {
        "latent_channels": latent_channels,
        "channels": tuple(args["ch"] * factor for factor in args["ch_mult"]),
        "layers_per_block": args["num_res_blocks"],
    }


def _vocoder(config: dict[str, Any]) -> VocoderConfig:
    dilations = {tuple(row) for row in config.get("resblock_dilation_sizes", ())}
    if len(dilations) > 1 or config.get("resblock", "1") != "1":
        raise ValueError("A vocoder whose residual blocks differ in their dilations, or of type 2, is not supported.")
    return VocoderConfig(
        **_given(
            config,
            channels="upsample_initial_channel",
            rates="upsample_rates",
            kernels="upsample_kernel_sizes",
            block_kernels="resblock_kernel_sizes",
        ),
        **({"dilations": dilations.pop()} if dilations else {}),
    )
