"""Autoencoders between what people see and hear and the latents that are denoised."""

from .kl import AudioAutoencoder, ImageAutoencoder
from .mel import LogMel, resample

__all__ = ["AudioAutoencoder", "ImageAutoencoder", "LogMel", "resample"]
