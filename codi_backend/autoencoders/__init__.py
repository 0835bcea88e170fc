"""Autoencoders between what people see and hear and the latents that are denoised."""

from .kl import AudioAutoencoder, ImageAutoencoder
from .mel import LogMel, resample
from .optimus import TextAutoencoder

__all__ = ["AudioAutoencoder", "ImageAutoencoder", "LogMel", "TextAutoencoder", "resample"]
