"""Where a model computes."""

from __future__ import annotations

from .model import CoDi


def place(codi: CoDi, device: str) -> CoDi:
    """Move the model to a device; a `ValueError` tells why it cannot be."""
    try:
        return codi.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The device {device} cannot be used ({reason}): choose another, such as cpu.") from error
