"""Windows over clips that are longer than those a model was trained on.

A long clip is denoised in windows that overlap in time. At every step the network predicts the noise of each window,
and the predictions are blended where windows overlap, as in MultiDiffusion (Bar-Tal et al., ICML 2023). All streams of
a window cover the same seconds. Streams without time (image, text) take part whole in every window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks.numbers import require_number
from ..config import CoDiConfig
from ..modalities import MAX_FRAMES, MAX_SECONDS, audio_steps, modality, multiple_of, step_samples
from .settings import WindowSettings

_ROUNDING = 1e-6  # seconds, or units
_SHORTEST = 0.01  # seconds


@dataclass(frozen=True)
class Window:
    """A part of a clip.

    Attributes
    ----------
    begin, end : float
        In seconds.
    steps : dict of str to slice
        Of each stream with time, its steps within the window: frames of a video, rows of an audio latent. Streams
        without an entry take part whole.
    """

    begin: float
    end: float
    steps: Mapping[str, slice]

    def cut(self, name: str, latent: Tensor) -> Tensor:
        """The part of a stream's latent ``[B, C, T, ...]`` within the window."""
        return latent[:, :, self.steps[name]] if name in self.steps else latent


def step_seconds(config: CoDiConfig, name: str) -> float:
    """Length of a step of a stream with time, in seconds: of a video's frame, or of a row of an audio latent."""
    if name == "video":
        return 1 / config.image_autoencoder.frame_rate
    return step_samples(config.audio_autoencoder) / config.audio_autoencoder.mel.sample_rate


def unit_steps(config: CoDiConfig, name: str) -> int:
    """A stream's length in steps must be a multiple of this, which is its network's."""
    return multiple_of(config.diffuser.networks["audio"]) if name == "audio" else 1


def trained_steps(config: CoDiConfig, name: str) -> int:
    """Steps of a stream with time in the clips of the model's training."""
    if name == "video":
        return config.image_autoencoder.frames
    audio = config.audio_autoencoder
    return audio_steps(round(audio.seconds * audio.mel.sample_rate), audio, unit_steps(config, name))


def plan_windows(
    config: CoDiConfig,
    lengths: Mapping[str, int],
    settings: WindowSettings = WindowSettings(),  # noqa: B008, frozen
) -> list[Window]:
    """The windows over a clip, in order; one if it is not longer than a window.

    Parameters
    ----------
    config : CoDiConfig
    lengths : dict of str to int
        Steps of each stream with time. They last equally long, to within a unit.
    settings : WindowSettings

    Returns
    -------
    list of Window
        They cover every step of every stream. The last one ends with the clip.

    Raises
    ------
    ValueError
        For a window or an overlap out of range, and streams of different lengths. The message begins with the name of
        the argument.
    """
    window, overlap = _checked(settings)
    seconds = {name: steps * step_seconds(config, name) for name, steps in lengths.items()}
    whole = Window(0.0, max(seconds.values(), default=0.0), {})
    if window is None:
        if all(steps <= trained_steps(config, name) for name, steps in lengths.items()):
            return [whole]
        window = min(trained_steps(config, name) * step_seconds(config, name) for name in lengths)
    if window >= whole.end - _ROUNDING:
        _check_frames(config, lengths.get("video", 1))
        return [whole]
    _check_equal(config, seconds)
    unit = max(unit_steps(config, name) * step_seconds(config, name) for name in lengths)
    total, size = math.ceil(whole.end / unit - _ROUNDING), max(1, math.floor(window / unit + _ROUNDING))
    shared = size // 4 if overlap is None else round(overlap / unit)
    if shared >= size:
        raise ValueError(
            f"overlap: {overlap:g} s leave nothing new in windows of {size * unit:g} s; choose less than that."
        )
    if "video" in lengths:
        _check_frames(config, round(size * unit / step_seconds(config, "video")))
    starts = [*range(0, total - size, size - shared), total - size]
    return [
        Window(
            start * unit,
            (start + size) * unit,
            {name: _steps(config, name, start * unit, size * unit, steps) for name, steps in lengths.items()},
        )
        for start in starts
    ]


def _steps(config: CoDiConfig, name: str, begin: float, length: float, total: int) -> slice:
    """A stream's steps in a window. Windows that touch share no step and leave none out."""
    step = step_seconds(config, name)
    return slice(min(round(begin / step), total), min(round((begin + length) / step), total))


def window_weights(windows: Sequence[Window], name: str, steps: int) -> list[Tensor]:
    """The weight of each window's prediction at each of a stream's steps in it.

    Parameters
    ----------
    windows : sequence of Window
    name : str
    steps : int
        The stream's steps in the whole clip; of a stream without time any number.

    Returns
    -------
    list of Tensor
        For each window ``[n]`` for its n steps, or ``[1]`` of a stream without time. At every step of the clip the
        weights of all windows add up to 1. They rise linearly from a window's edges to its middle and are then
        normalised, so across an overlap one window fades into the next.
    """
    if not all(name in window.steps for window in windows):
        return [torch.full((1,), 1 / len(windows)) for _ in windows]
    ramps = [_pyramid(window.steps[name].stop - window.steps[name].start) for window in windows]
    total = torch.zeros(steps)
    for window, ramp in zip(windows, ramps):
        total[window.steps[name]] += ramp
    return [ramp / total[window.steps[name]] for window, ramp in zip(windows, ramps)]


def _pyramid(steps: int) -> Tensor:
    up = torch.arange(1, steps + 1, dtype=torch.float32)
    return torch.minimum(up, up.flip(0))


def blend(whole: Tensor, part: Tensor, window: Window, name: str, weights: Tensor) -> None:
    """Add a window's prediction for a stream, times its weights, to that for the whole clip, in place."""
    axis = modality(name).time_axis
    if axis is not None:
        weights = weights.reshape(-1, *[1] * (part.ndim - 1 - axis))
    window.cut(name, whole).add_(part * weights.to(part))


def _checked(settings: WindowSettings) -> tuple[float | None, float | None]:
    """Window and overlap. `ValueError` for one out of range."""
    window, overlap = settings.seconds, settings.overlap
    if window is not None and window != math.inf:
        window = require_number(window, "window", _SHORTEST, MAX_SECONDS)
    return window, None if overlap is None else require_number(overlap, "overlap", 0, MAX_SECONDS)


def _check_equal(config: CoDiConfig, seconds: Mapping[str, float]) -> None:
    unit = max(unit_steps(config, name) * step_seconds(config, name) for name in seconds)
    if max(seconds.values()) - min(seconds.values()) > unit + _ROUNDING:
        found = ", ".join(f"{name} {length:g} s" for name, length in seconds.items())
        raise ValueError(f"seconds: windows need streams that last equally long ({found}); give all the same length.")


def _check_frames(config: CoDiConfig, frames: int) -> None:
    if frames > MAX_FRAMES:
        step = step_seconds(config, "video")
        raise ValueError(
            f"window: {frames * step:g} s are {frames} frames of a video, where a network takes {MAX_FRAMES} at once; "
            f"choose at most {MAX_FRAMES * step:g} s."
        )
