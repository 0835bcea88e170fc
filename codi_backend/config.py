"""Configurations of the networks, stored as JSON inside our checkpoints."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class UNetConfig:
    """One diffuser network (SPEC section 2.1; the text network: section 2.3).

    The tuples run over the resolution levels, finest first. `environment_*` describe the environment encoder, whose
    first convolution is half as wide as `model_channels`.

    Attributes
    ----------
    text_positions : int or None
        For the text network, the number of positions that every feature has (`second_dim`, 4 in the published one).
    temporal : bool
        Whether every residual block is followed by a spatio-temporal block, which acts on 5-D latents only.
    """

    in_channels: int
    model_channels: int
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: tuple[int, ...] = (2, 2, 2, 2)
    attention: tuple[bool, ...] = (True, True, True, False)
    connector: tuple[bool, ...] = (True, True, True, False)
    num_heads: int = 8
    context_dim: int = 768
    environment_dim: int = 1280
    environment_mult: tuple[int, ...] = (1, 2, 4)
    environment_res_blocks: tuple[int, ...] = (1, 1, 1)
    temporal: bool = False
    text_positions: int | None = None


@dataclass(frozen=True)
class DiffuserConfig:
    """The diffuser: one network per latent space, and how streams listen to each other.

    Attributes
    ----------
    networks : dict of str to UNetConfig
        Keys are `Modality.network` names.
    middle_as_first_skip : bool
        Released quirk Q-SKIP-ALIAS (SPEC section 2): the first decoder block gets the middle block's output twice.
    listen : {"sum", "mean"}
        How a stream combines what several others tell it through a connector.
    """

    networks: dict[str, UNetConfig] = field(default_factory=dict)
    middle_as_first_skip: bool = False
    listen: str = "sum"


@dataclass(frozen=True)
class TextEncoderConfig:
    """A CLIP text transformer with a projection (SPEC section 3.1).

    `token_dim` factorises the token table (`vocab_size x token_dim`, then a linear map to `width`), which keeps a small
    model small; None means a full-width table as in CLIP.
    """

    vocab_size: int = 49408
    positions: int = 77
    width: int = 768
    layers: int = 12
    heads: int = 12
    embedding_dim: int = 768
    token_dim: int | None = None


@dataclass(frozen=True)
class ImageAutoencoderConfig:
    """Arguments of diffusers' `AutoencoderKL`, and the factor between VAE latents and diffuser latents.

    `patch` folds squares of that many pixels into channels before the VAE, which makes a small model cheap (1: off).
    """

    latent_channels: int = 4
    patch: int = 1
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scale_factor: float = 0.18215
    image_size: int = 256


@dataclass(frozen=True)
class MelConfig:
    """Log-mel spectrograms (SPEC section 5.2): magnitudes, Slaney bands, natural logarithm of ``max(x, floor)``."""

    sample_rate: int = 16000
    n_fft: int = 1024
    hop: int = 160
    bands: int = 64
    f_min: float = 0.0
    f_max: float = 8000.0
    floor: float = 1e-5


@dataclass(frozen=True)
class AudioAutoencoderConfig:
    """The mel VAE; `mel_mean` and `mel_std` normalise log-mels to about unit range, `patch` as for images."""

    latent_channels: int = 8
    patch: int = 1
    channels: tuple[int, ...] = (128, 256, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scale_factor: float = 0.9228
    seconds: float = 10.24
    mel: MelConfig = field(default_factory=MelConfig)
    mel_mean: float = 0.0
    mel_std: float = 1.0


@dataclass(frozen=True)
class CoDiConfig:
    """Everything that shapes a CoDi model. A part that is None does not exist in this model.

    Attributes
    ----------
    name : str
        Shown in reports and node titles.
    guidance : float
        Default classifier-free guidance scale.
    """

    name: str = "codi"
    diffuser: DiffuserConfig = field(default_factory=DiffuserConfig)
    text_encoder: TextEncoderConfig | None = None
    image_autoencoder: ImageAutoencoderConfig | None = None
    audio_autoencoder: AudioAutoencoderConfig | None = None
    guidance: float = 7.5

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> CoDiConfig:
        """Read what `to_json` wrote. A `ValueError` names an unknown or missing field."""
        return _build(cls, json.loads(text))


_NESTED = {
    "diffuser": DiffuserConfig,
    "text_encoder": TextEncoderConfig,
    "image_autoencoder": ImageAutoencoderConfig,
    "audio_autoencoder": AudioAutoencoderConfig,
    "mel": MelConfig,
}


def _build(cls: type, values: dict[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"{cls.__name__} has no field {', '.join(unknown)}: the file was written by a newer version of this pack."
        )
    built = {}
    for name, value in values.items():
        if name == "networks":
            value = {network: _build(UNetConfig, v) for network, v in value.items()}
        elif name in _NESTED and value is not None:
            value = _build(_NESTED[name], value)
        elif isinstance(value, list):
            value = tuple(value)
        built[name] = value
    return cls(**built)
