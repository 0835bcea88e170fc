"""Nodes for prompts: encoders, interpolation, embedding files."""
