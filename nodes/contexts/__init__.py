"""Nodes for Versatile Diffusion's contexts."""
