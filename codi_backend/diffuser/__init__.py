"""The diffusion networks and the joint forward pass."""

from .joint import ALIGNMENTS, Diffuser
from .slots import Contexts, draw_contexts
from .unet import UNet

__all__ = ["ALIGNMENTS", "Contexts", "Diffuser", "UNet", "draw_contexts"]
