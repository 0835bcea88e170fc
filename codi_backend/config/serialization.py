"""Reading configurations from JSON, which may be of another program, damaged or malicious."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from typing import Any

from ..modalities import MODALITIES
from .coupler import AXES

# Larger networks would fill the memory or take too long to build.
_MOST = {
    **dict.fromkeys(("layers", "depths", "blocks"), 200),
    **dict.fromkeys(("layers_per_block", "num_res_blocks", "environment_res_blocks", "temporal_connectors"), 20),
    **dict.fromkeys(("bands", "window"), 1024),
    **dict.fromkeys(("n_fft", "text_positions", "positions"), 1 << 16),
    "image_size": 1 << 14,
}
_MOST_NUMBERS = {
    "latent_means": 1 << 16,
    "mean": 1 << 16,
    "spaces": 64,
}  # in a list; elsewhere lists are of levels and the like
_MOST_LEVELS = 16
_LARGEST = 1 << 24
_MAY_BE_ZERO = {"temporal_connectors"}
# Divisors, and numbers that determine a size.
_POSITIVE = {"std", "scale_factor", "frame_rate", "seconds", "f_max", "floor", "mel_std"}
_LARGEST_NUMBER = 1e9
_NETWORKS = tuple(dict.fromkeys(row.network for row in MODALITIES.values()))
_CHOICES = {
    "prediction": ("eps", "v"),
    "environment_time": ("frames", "rows"),
    "temporal_norm": ("frames", "channels"),
    "contexts": ("text", "image"),
    "auxiliary_streams": tuple(MODALITIES),
    "axes": AXES,
}
_KEYS = {"networks": _NETWORKS, "latent_means": tuple(MODALITIES), "auxiliary_streams": tuple(MODALITIES)}
# Former names of fields, which the files of the shipped models have; and a former field that had one value only.
_RENAMED = {"alignment_scale": "modality_guidance", "candidates": "num_candidates", "companions": "auxiliary_streams"}
_REMOVED = {"listen": "sum"}


def from_json(kind: type, text: str | bytes) -> Any:
    """Read a dataclass from JSON.

    Parameters
    ----------
    kind : type
        The dataclass, such as `CoDiConfig`. The types of its fields define the valid JSON.
    text : str or bytes

    Raises
    ------
    ValueError
        For an unknown or missing field, a value of another type, or a size out of range; the message names the field.
    """
    try:
        values = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The text is not a CoDi configuration: {error}.") from error
    return _build(kind, values, kind.__name__)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{_name(next(name for name in names if names.count(name) > 1))} occurs twice")
    return values


def _build(kind: type, values: Any, place: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"The text is not a CoDi configuration: {place} is {_shown(values)}, not a JSON object.")
    values = {_RENAMED.get(name, name): value for name, value in values.items() if _REMOVED.get(name) != value}
    fields = dataclasses.fields(kind)
    needed = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}: the text is not a CoDi configuration.")
    if unknown := sorted(set(values) - {f.name for f in fields}):
        names = ", ".join(map(_name, unknown))
        raise ValueError(f"{kind.__name__} has no field {names}: the file was written by a newer version of this pack.")
    hints = _hints(kind)
    return kind(**{name: _read(hints[name], value, name, f"{kind.__name__}.{name}") for name, value in values.items()})


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(hint: Any, value: Any, name: str, place: str) -> Any:
    """Read a value of a field's type: a number, a text, a tuple or dict of them, or a dataclass."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _read(next(kind for kind in inner if kind is not type(None)), value, name, place)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, place)
    if origin is tuple and isinstance(value, list):
        most = _LARGEST if inner[0] is str else _MOST_NUMBERS.get(name, _MOST_LEVELS)
        if len(value) > most:
            raise _wrong(place, f"a list of {len(value)}", f"one of at most {most}")
        return tuple(_read(inner[0], one, name, place) for one in value)
    if origin is dict and isinstance(value, dict):
        if strange := [key for key in value if key not in _KEYS[name]]:
            raise _wrong(place, f"for {_shown(strange[0])}", f"one of {', '.join(_KEYS[name])}")
        return {key: _read(inner[1], one, name, f"{place}[{_shown(key)}]") for key, one in value.items()}
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        if name in _CHOICES and value not in _CHOICES[name]:
            raise _wrong(place, _shown(value), " or ".join(_CHOICES[name]))
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        least, most = 0 if name in _MAY_BE_ZERO else 1, _MOST.get(name, _LARGEST)
        if not least <= value <= most:
            raise _wrong(place, _shown(value), f"{least} to {most}")
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        # In this order: comparisons with NaN are false, and a whole number may be too large for a float.
        if not abs(value) <= _LARGEST_NUMBER or (name in _POSITIVE and value <= 0):
            raise _wrong(place, _shown(value), "a positive number" if name in _POSITIVE else "a number of usual size")
        return value
    raise _wrong(place, _shown(value), _called(hint))


def _wrong(place: str, value: str, needed: str) -> ValueError:
    return ValueError(
        f"{place} is {value}, where {needed} is needed: the text is not a CoDi configuration, or it is damaged."
    )


def _called(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        return "a list"
    if typing.get_origin(hint) is dict:
        return "a JSON object"
    return {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}[hint]


def _name(name: str) -> str:
    return name if name.isidentifier() else _shown(name)


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return "a number of over 20 digits"  # Python limits the length of printed integers
    text = repr(value)
    return text if len(text) < 40 else f"{text[:40]}..."
