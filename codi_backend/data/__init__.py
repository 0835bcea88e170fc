"""Shapes & Chimes, the procedural world of the small model, and how to look at it."""

from .dataset import ShapesAndChimes
from .world import Scene, is_held_out, make_scene, sample_scene

__all__ = ["Scene", "ShapesAndChimes", "is_held_out", "make_scene", "sample_scene"]
