"""Sampler and guider nodes."""
