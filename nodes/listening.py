"""What the user set about how streams listen to each other; it travels in the options of a MODEL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..codi_backend.checks import MAX_SCALE, require_number
from ..codi_backend.config import CoDiConfig
from ..codi_backend.diffusion import STEPS
from ..codi_backend.sampling import scale_at

# Key in a MODEL's `transformer_options`.
KEY = "codi"


def with_settings(model, **settings):
    """A clone of a MODEL with some of the settings changed.

    Settings are `alignment`, `strength` and `alignment_scale` as `sample` takes them (a scale of 0 is the model's own),
    `pairs`, a dict of (listener, speaker) to strength, which goes before `strength`, and `curve`, a factor of all
    strengths as a function of the progress.

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


def progress(timesteps: Tensor) -> float:
    """How far sampling has come: 0 at the highest noise level, 1 at the lowest. All samples share it."""
    return min(max(1 - float(timesteps[0]) / (STEPS - 1), 0.0), 1.0)


def diffuser_arguments(
    settings: dict[str, Any], config: CoDiConfig, streams: Sequence[str], timesteps: Tensor
) -> dict[str, Any]:
    """The settings as arguments of `Diffuser.forward` at one noise level."""
    curve = settings.get("curve")
    factor = 1.0 if curve is None else max(0.0, float(curve.interp(progress(timesteps))))
    strength = settings.get("strength", 1.0) * factor
    if pairs := settings.get("pairs"):
        strength = {
            (listener, speaker): pairs[listener, speaker] * factor if (listener, speaker) in pairs else strength
            for listener in streams
            for speaker in streams
        }
    scale = settings.get("alignment_scale") or config.alignment_scale
    return {
        "alignment": settings.get("alignment", "paper"),
        "strength": strength,
        "alignment_scale": scale_at(scale, timesteps[0], "held" in settings),
    }
