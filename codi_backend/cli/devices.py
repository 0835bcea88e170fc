"""Devices that a model runs on."""

from __future__ import annotations

import warnings

import torch

from ..pipeline import CoDi


def place(codi: CoDi, device: str) -> CoDi:
    """Move the model to a device; `ValueError` if it cannot be moved."""
    check_device(device)
    try:
        return codi.to(device)
    except RuntimeError as error:
        raise _unusable(device, error) from error


def check_device(device: str) -> None:
    """Raise a `ValueError` for a device that does not exist on this machine, or that does not compute."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about deprecated names
            # Some devices only store values, and "meta" does not even store them.
            works = (torch.ones(1, device=device) + 1).tolist() == [2]
    except (RuntimeError, AssertionError, ImportError) as error:
        raise _unusable(device, error) from error
    if not works:
        raise _unusable(device, "it does not compute")


def _unusable(device: str, reason: Exception | str) -> ValueError:
    lines = str(reason).splitlines() or [type(reason).__name__]
    return ValueError(f"The device {device} cannot be used ({lines[0]}): choose another, such as cpu.")
