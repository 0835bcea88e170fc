"""Sampling: settings, noise, guidance, alignment, schedulers, the loop, and best-of-N selection.

The rules are pure functions. `samplers.sample` applies them outside ComfyUI, the nodes apply them inside it.
"""
