"""Finding the state dict in the structures that training programs save."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

# Names under which programs save weights, and their averages over training.
_WEIGHTS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "params", "weights")
_AVERAGES = ("ema", "model_ema", "params_ema", "ema_model", "ema_state_dict", "state_dict_ema", "ema_model_state_dict")
_COMPILED = "_orig_mod."  # torch.compile
_PARALLEL = "module."  # DataParallel and its kind, AveragedModel
_HOLDERS = ("model.", "net.")  # a training program's attribute


def find_state_dict(content: Any, name: str) -> dict[str, Tensor]:
    """Find the tensors by name in the content of a file.

    Dicts under the usual names (``state_dict``, ``model``, ``module``, ``ema`` ...) are opened, also nested
    ones. If a file holds both weights and their average over training, the average is used, with a warning.

    Parameters
    ----------
    content : object
        The result of `torch.load`.
    name : str
        The file's name, for messages.

    Raises
    ------
    ValueError
        If there are no tensors by name, several dicts of them, or tensors that are not dense; the message names the
        file.
    """
    content = _opened(content, name)
    tensors = {key: _plain(value, key, name) for key, value in content.items() if _is_named_tensor(key, value)}
    if not tensors:
        inside = ", ".join(sorted(str(key) for key, value in content.items() if isinstance(value, Mapping))[:4])
        where = f", and none under the usual entries (it has {inside})" if inside else ""
        raise ValueError(f"{name} holds no tensors by name{where}: it is not a checkpoint; save a state dict.")
    return tensors


def _opened(content: Any, name: str) -> Mapping[Any, Any]:
    """The innermost dict."""
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{name} holds no tensors by name but a {type(content).__name__}: it is not a checkpoint; "
            "save a state dict."
        )
    inside = {key: content[key] for key in (*_AVERAGES, *_WEIGHTS) if _has_tensors(content.get(key))}
    if not inside:
        return content
    if own := [key for key, value in content.items() if _is_named_tensor(key, value) and "." in key]:
        raise ValueError(
            f"{name} holds tensors by name ({own[0]}) and under {next(iter(inside))!r} too: save one state dict alone."
        )
    averages = [key for key in inside if key in _AVERAGES]
    weights = [key for key in inside if key in _WEIGHTS]
    if len(averages) > 1 or (len(weights) > 1 and not averages):
        found = " and ".join(repr(key) for key in averages or weights)
        raise ValueError(f"{name} holds several state dicts, {found}: save only the one to load.")
    chosen = (averages or weights)[0]
    if averages and weights:
        warnings.warn(
            f"{name} holds weights under {weights[0]!r} and their average under {chosen!r}: the average is used.",
            stacklevel=2,
        )
    return _opened(inside[chosen], name)


def _has_tensors(content: Any) -> bool:
    if not isinstance(content, Mapping):
        return False
    if any(_is_named_tensor(key, value) for key, value in content.items()):
        return True
    return any(_has_tensors(content.get(key)) for key in (*_AVERAGES, *_WEIGHTS))


def _is_named_tensor(key: Any, value: Any) -> bool:
    return isinstance(key, str) and torch.is_tensor(value)


def is_plain(value: Tensor) -> bool:
    """Whether a tensor is dense, not quantized, and has values."""
    return value.layout == torch.strided and not (value.is_quantized or value.is_nested or value.is_meta)


def _plain(value: Tensor, key: str, name: str) -> Tensor:
    if not is_plain(value):
        raise ValueError(
            f"{name} holds {key} without plain values (it is sparse, quantized, nested or empty): save dense tensors."
        )
    return value.detach()


def plain_names(keys: Iterable[str], known: Callable[[Iterable[str]], bool], name: str) -> dict[str, str]:
    """Names of tensors without the prefixes of wrappers, mapped to their keys in the file.

    ``_orig_mod.`` is removed everywhere. ``module.`` is removed if all names begin with it, ``model.`` and ``net.`` if
    all names do and `known` rejects them. Names without a dot, such as a counter's, are not considered.

    Parameters
    ----------
    keys : iterable of str
    known : callable
        Whether some of these names belong to a model.
    name : str
        The file's name, for messages.

    Raises
    ------
    ValueError
        If two tensors would have the same name.
    """
    keys = list(keys)
    short = [key.replace(_COMPILED, "") for key in keys]
    while prefix := _common(short, (_PARALLEL,) if known(short) else (_PARALLEL, *_HOLDERS)):
        short = [key.removeprefix(prefix) for key in short]
    names = dict(zip(short, keys))
    if len(names) < len(keys):
        twice = next(plain for plain, key in zip(short, keys) if names[plain] != key)
        raise ValueError(f"{name} holds {twice} twice, as {names[twice]} too: save one state dict alone.")
    return names


def _common(keys: Iterable[str], prefixes: Iterable[str]) -> str | None:
    dotted = [key for key in keys if "." in key]
    return next((p for p in prefixes if dotted and all(key.startswith(p) and key != p for key in dotted)), None)
