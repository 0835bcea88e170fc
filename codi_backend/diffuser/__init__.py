"""The diffusion networks and the joint forward pass."""

from .joint import ALIGNMENTS, Diffuser
from .unet import UNet

__all__ = ["ALIGNMENTS", "Diffuser", "UNet"]
