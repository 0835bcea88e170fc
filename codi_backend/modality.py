"""The modalities and how their latents are laid out.

A modality is a row of this table plus its parts (prompt encoder, autoencoder, diffuser network); code that treats
modalities alike reads the row instead of asking for the name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Modality:
    """One kind of content.

    Attributes
    ----------
    name : str
        The name used everywhere: in dicts of latents, on the command line, in node inputs.
    network : str
        The diffuser network that denoises it. Image and video share one (SPEC section 2.1).
    latent_rank : int
        Number of axes of a latent, the batch included: text ``[B, D]``, image ``[B, C, H, W]``,
        video ``[B, C, T, H, W]``, audio ``[B, C, T, F]`` (time before frequency).
    time_axis : int or None
        The axis of a latent that is time, if it has one.
    stream : int
        A number that never changes, from which the modality's own noise seed is derived.
    """

    name: str
    network: str
    latent_rank: int
    time_axis: int | None
    stream: int


MODALITIES: dict[str, Modality] = {
    row.name: row
    for row in (
        Modality("text", "text", 2, None, 0),
        Modality("image", "image", 4, None, 1),
        Modality("video", "image", 5, 2, 2),
        Modality("audio", "audio", 4, 2, 3),
    )
}


def modality(name: str) -> Modality:
    """Look a modality up by name; a `ValueError` names the known ones."""
    if name not in MODALITIES:
        raise ValueError(f"There is no modality {name!r}; choose from {', '.join(MODALITIES)}.")
    return MODALITIES[name]
