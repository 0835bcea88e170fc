"""Nodes for native CLIP vision outputs."""
