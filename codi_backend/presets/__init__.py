"""Configurations and weights of the built-in small models."""
