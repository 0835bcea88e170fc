"""Shapes & Chimes, the procedural world of the small model; and a user's own data."""

from .dataset import ShapesAndChimes
from .world import Scene, is_held_out, make_scene, sample_scene

__all__ = ["Scene", "ShapesAndChimes", "is_held_out", "make_scene", "sample_scene"]
