"""Where a model computes."""

from __future__ import annotations

import warnings

import torch

from .model import CoDi


def place(codi: CoDi, device: str) -> CoDi:
    """Move the model to a device; a `ValueError` tells why it cannot be."""
    check_device(device)
    try:
        return codi.to(device)
    except RuntimeError as error:
        raise _unusable(device, error) from error


def check_device(device: str) -> None:
    """`ValueError` for the name of a device that does not exist here, or that computes nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that are no longer in use
            # Some devices hold numbers without computing, and "meta" forgets them.
            works = (torch.ones(1, device=device) + 1).tolist() == [2]
    except (RuntimeError, AssertionError, ImportError) as error:
        raise _unusable(device, error) from error
    if not works:
        raise _unusable(device, "it computes nothing")


def _unusable(device: str, reason: Exception | str) -> ValueError:
    lines = str(reason).splitlines() or [type(reason).__name__]
    return ValueError(f"The device {device} cannot be used ({lines[0]}): choose another, such as cpu.")
