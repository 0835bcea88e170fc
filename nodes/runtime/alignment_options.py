"""Alignment settings of a run; they travel in the options of a MODEL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...codi_backend.checks.numbers import MAX_SCALE, require_number
from ...codi_backend.config import CoDiConfig
from ...codi_backend.sampling.alignment import for_branch, modality_guidance_at, pair_strengths, progress

# Key in a MODEL's `transformer_options`.
KEY = "codi"


def with_settings(model, **settings):
    """A clone of a MODEL with some of the settings changed.

    Settings are `alignment` and `strength` as in `AlignmentSettings`; `alignment_scale`, the modality guidance scale
    (0: the model's own); `pairs`, a dict of (target, source) to strength, which overrides `strength`; and `curve`, a
    factor of all strengths as a function of the progress.

    `ValueError` that begins with the input's name for a number out of range.
    """
    for name, low in (("strength", 0.0), ("alignment_scale", -MAX_SCALE)):
        if name in settings:
            settings[name] = require_number(settings[name], name, low, MAX_SCALE)
    if "pairs" in settings:
        settings["pairs"] = {
            pair: require_number(value, "strength", 0, MAX_SCALE) for pair, value in settings["pairs"].items()
        }
    patched = model.clone()
    options = patched.model_options["transformer_options"]
    options[KEY] = options.get(KEY, {}) | settings
    return patched


def mode_of(model_options: dict[str, Any]) -> str:
    """The alignment mode in the options of a MODEL."""
    return model_options.get("transformer_options", {}).get(KEY, {}).get("alignment", "paper")


def diffuser_arguments(
    settings: dict[str, Any], config: CoDiConfig, streams: Sequence[str], timesteps: Tensor, is_conditional: bool
) -> dict[str, Any]:
    """The settings as arguments of `Diffuser.forward`, for one branch of guidance at one noise level."""
    curve = settings.get("curve")
    factor = 1.0 if curve is None else max(0.0, float(curve.interp(progress(timesteps[0]))))
    scale = settings.get("alignment_scale") or config.modality_guidance
    return {
        "alignment": for_branch(settings.get("alignment", "paper"), is_conditional),
        "strength": pair_strengths(settings.get("strength", 1.0), settings.get("pairs", {}), factor, streams),
        "modality_guidance": modality_guidance_at(scale, timesteps[0], "held" in settings),
    }
