"""Nodes for looking at results, and for examples."""
