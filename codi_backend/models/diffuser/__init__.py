"""The diffusion networks and the joint forward pass."""

from .diffuser import ALIGNMENTS, Diffuser
from .shared_attention import Contexts, draw_contexts
from .unet import UNet

__all__ = ["ALIGNMENTS", "Contexts", "Diffuser", "UNet", "draw_contexts"]
