"""Checks of inputs that several nodes share. A `ValueError` begins with the input's name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .encoder_patchers import PromptEncoders


def require_autoencoder(autoencoder: Any, name: str, kind: str) -> None:
    """`ValueError` if the checkpoint has no autoencoder of this kind, so that the input is None."""
    if autoencoder is None:
        instead = ", or connect another VAE" if name == "vae" else ""
        raise ValueError(f"{name}: the loaded checkpoint has no {kind} autoencoder; load one that has{instead}.")


def require_prompt_encoders(prompt_encoders: PromptEncoders | None) -> PromptEncoders:
    """The prompt encoders. `ValueError` if none are connected."""
    if prompt_encoders is None:
        raise ValueError("prompt_encoders: nothing is connected; connect the prompt encoders of CoDi Load Model.")
    return prompt_encoders


def require_choice(value: Any, name: str, choices: Iterable[str]) -> None:
    """`ValueError` if a value is none of the choices of the input `name`."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}: there is no {value!r}; choose from {', '.join(choices)}.")
