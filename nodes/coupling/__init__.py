"""Nodes that couple models which know nothing of each other."""
