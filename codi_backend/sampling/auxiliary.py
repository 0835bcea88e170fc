"""Auxiliary streams: sampled beside the outputs, which improves them, and then dropped."""

from __future__ import annotations

from collections.abc import Collection

from ..config import CoDiConfig
from ..modalities import MODALITIES, modality


def auxiliary_streams(
    config: CoDiConfig,
    outputs: Collection[str],
    held: Collection[str] = (),
    mode: str = "paper",
    start_strength: float = 0.0,
) -> list[str]:
    """The streams that are sampled beside the outputs, in the order of `MODALITIES`.

    A small model's video keeps time better beside an audio stream, for example. There are none where streams do not
    attend to each other (a `mode` other than "paper"), or where a run begins with given latents.

    Parameters
    ----------
    config : CoDiConfig
        `config.auxiliary_streams` names them by output.
    outputs, held : collection of str
        Modalities that are generated, and those that are given.
    """
    if mode != "paper" or start_strength > 0:
        return []
    sampled = set(outputs) - set(held)
    wanted = {other for name in sampled for other in config.auxiliary_streams.get(name, ())} - {*outputs, *held}
    return [name for name in MODALITIES if name in wanted and modality(name).network in config.diffuser.networks]
