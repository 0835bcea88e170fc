"""Nodes for joint latents."""
