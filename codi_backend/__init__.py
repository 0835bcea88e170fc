"""CoDi, any-to-any generation via composable diffusion, as a PyTorch library.

Importing this package is cheap; torch and the rest are imported with the first attribute.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "CoDi": "pipeline",
    "CoDiConfig": "config",
    "Context": "conditioning.context",
    "CoupledStream": "sampling.couple",
    "Coupler": "models.coupler",
    "MixedContext": "conditioning.context",
    "Prompt": "conditioning.prompt",
    "concatenate": "conditioning.context",
    "couple": "sampling.couple",
    "from_diffusers": "sampling.noise_levels",
    "interpolate": "conditioning.prompt",
    "load_coupler": "checkpoints.coupler_file",
    "mix": "conditioning.context",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
