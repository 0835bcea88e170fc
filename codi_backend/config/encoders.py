"""Configurations of the prompt encoders."""

from __future__ import annotations

from dataclasses import dataclass, field

from .autoencoders import MelConfig


@dataclass(frozen=True)
class TextEncoderConfig:
    """A CLIP text transformer with a projection (SPEC section 3.1).

    `token_dim` factorises the token table (`vocab_size x token_dim`, then a linear map to `width`), which keeps a small
    model small; None means a full-width table as in CLIP. `mlp` is the width between a layer's two feed-forward maps,
    four times `width` if None.
    """

    vocab_size: int = 49408
    positions: int = 77
    width: int = 768
    layers: int = 12
    heads: int = 12
    embedding_dim: int = 768
    token_dim: int | None = None
    mlp: int | None = None


@dataclass(frozen=True)
class VisionEncoderConfig:
    """A CLIP vision transformer with a projection (SPEC section 3.1); the defaults are the published one.

    Attributes
    ----------
    mlp : int
        Width between a layer's two feed-forward maps.
    temporal : bool
        Whether every layer has a temporal block, which applies to videos of more than one frame only.
    image_side, video_side : int
        Side in pixels of the squares that images and videos are first resized to.
    frames : int or None
        Number of evenly spread frames that are encoded of a longer video; None for all.
    """

    image_size: int = 224
    patch: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    embedding_dim: int = 768
    temporal: bool = True
    image_side: int = 512
    video_side: int = 256
    frames: int | None = None


@dataclass(frozen=True)
class ClapConfig:
    """CLAP's audio transformer (HTSAT) with a projection (SPEC section 3.2); the defaults are the published one.

    Attributes
    ----------
    width : int
        Channels of the first stage; each further stage has twice as many.
    depths, heads : tuple of int
        Blocks and attention heads of each stage.
    window : int
        Side of an attention window, in patches.
    image_size, patch : int
        Side of the square that the log-mel is folded to, and of a patch of it.
    input_rate : int
        Audio is resampled to this rate and then to `mel.sample_rate`, so frequencies above half of it are removed.
    samples : int
        Length of the audio at `mel.sample_rate`, after cutting or repeating.
    classes : int
        Outputs of the tagging layers, which are in the published file and not used for the embedding.
    """

    width: int = 256
    depths: tuple[int, ...] = (2, 2, 12, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 8
    image_size: int = 256
    patch: int = 4
    embedding_dim: int = 768
    input_rate: int = 16000
    samples: int = 480000
    mel: MelConfig = field(
        default_factory=lambda: MelConfig(
            sample_rate=48000, n_fft=1024, hop=480, bands=64, f_min=50.0, f_max=14000.0, floor=1e-10
        )
    )
    classes: int = 527

    @property
    def seconds(self) -> float:
        """Length of the encoder's audio in seconds."""
        return self.samples / self.mel.sample_rate
