"""Autoencoders between images, videos, audio and text and the latents that are denoised."""

from .audio_dsp import resample
from .kl import AudioAutoencoder, ImageAutoencoder
from .mel import LogMel
from .optimus import TextAutoencoder

__all__ = ["AudioAutoencoder", "ImageAutoencoder", "LogMel", "TextAutoencoder", "resample"]
