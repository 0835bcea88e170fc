"""Configuration of a coupler: the latent spaces that it compares, and the size of its encoders."""

from __future__ import annotations

from dataclasses import dataclass

AXES = ("", "T", "HW", "TF", "FT", "THW")


@dataclass(frozen=True)
class LatentSpace:
    """The latent space of an autoencoder, in the units of the autoencoder.

    Attributes
    ----------
    name : str
    channels : int
    axes : {"", "T", "HW", "TF", "FT", "THW"}
        The axes after the channels: T is time, F frequency, H and W are places. Without axes a latent is a vector.
    shape : tuple of int
        The extent of these axes in training. Other extents work as well.
    mean : tuple of float
        Mean of clean latents, per channel.
    std : float
        Standard deviation of clean latents from `mean`, over all channels.
    """

    name: str
    channels: int
    axes: str
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: float


@dataclass(frozen=True)
class CouplerConfig:
    """A coupler, see `models.coupler.Coupler`.

    Attributes
    ----------
    spaces : tuple of LatentSpace
    width : int
        Channels of the encoders at their finest level; coarser levels have twice as many.
    blocks : int
        Residual blocks at the coarser level.
    token_dim : int
        Channels of a pooled token and of a token over time.
    """

    spaces: tuple[LatentSpace, ...]
    width: int = 48
    blocks: int = 2
    token_dim: int = 128
