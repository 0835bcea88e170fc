"""The modalities and how their latents are laid out.

A modality is a row of this table plus its parts (prompt encoder, autoencoder, diffuser network); code that
treats modalities alike reads the row and does not compare names.

This module also converts pixels, frames, seconds and samples to shapes of latents, from a configuration alone.

A stream has the shortest length of its network that is not below the requested one. A video has whole frames; an audio
latent has whole units, whose number of steps is the downsampling factor of the network (0.32 s in the small and in the
published model). So the streams of one run may differ by less than a unit. A length in frames or in seconds alone
applies to all streams with a time axis; without either, each stream has the model's default length.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import AudioAutoencoderConfig, CoDiConfig, ImageAutoencoderConfig, UNetConfig

# Frames of a video that a network takes at once. Memory grows with the square; models are trained on a few dozen.
MAX_FRAMES = 120
# Frames of a clip that is denoised in windows.
MAX_CLIP_FRAMES = 4096
MAX_SECONDS = 600.0
MAX_SIDE = 4096  # pixels
_ROUNDING = 1e-4  # of a frame: a smaller excess over whole frames adds no frame


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
        Number of axes of a latent, including the batch: text ``[B, D]``, image ``[B, C, H, W]``,
        video ``[B, C, T, H, W]``, audio ``[B, C, T, F]`` (time before frequency).
    time_axis : int or None
        The time axis of a latent, if it has one.
    stream : int
        A constant number, from which the noise seed of the modality is derived.
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
    """Look up a modality by name; `ValueError` for an unknown name."""
    if name not in MODALITIES:
        raise ValueError(f"There is no modality {name!r}; choose from {', '.join(MODALITIES)}.")
    return MODALITIES[name]


def scale_factor(config: CoDiConfig, name: str) -> float:
    """Factor between an autoencoder's latents and the scaled latents of the diffuser; 1 without an autoencoder."""
    autoencoder = getattr(config, f"{modality(name).network}_autoencoder")
    return 1.0 if autoencoder is None else autoencoder.scale_factor


def downscale(autoencoder: ImageAutoencoderConfig | AudioAutoencoderConfig) -> int:
    """Pixels, or frames of a log-mel, along one axis per position of a latent."""
    return autoencoder.patch * 2 ** (len(autoencoder.channels) - 1)


def multiple_of(network: UNetConfig) -> int:
    """Downsampling factor of the U-Net; the extent of a latent must be a multiple of it."""
    return 2 ** (len(network.channel_mult) - 1)


def step_samples(autoencoder: AudioAutoencoderConfig) -> int:
    """Samples per step of an audio latent."""
    return autoencoder.mel.hop * downscale(autoencoder)


def audio_steps(samples: int, autoencoder: AudioAutoencoderConfig, multiple: int = 1) -> int:
    """Steps of the latent of `samples` at the model's rate, rounded up to a multiple; at least one."""
    return max(1, -(-samples // (step_samples(autoencoder) * multiple))) * multiple


def lengths(config: CoDiConfig, frames: int | None = None, seconds: float | None = None) -> tuple[int, float]:
    """Complete the requested length: frames of videos and seconds of audio, of one run.

    Parameters
    ----------
    config : CoDiConfig
    frames, seconds : optional
        One of them sets both. If both are given, they must agree within one step of the latents: a frame or a unit of
        the audio network, whichever is longer. With neither, each stream has the model's default length.

    Returns
    -------
    tuple of int and float
        None for a length that this model has no stream for.

    Raises
    ------
    ValueError
        For a length out of range, or two that disagree. The message begins with the name of the argument.
    """
    image, audio = config.image_autoencoder, config.audio_autoencoder
    if frames is None and seconds is None:
        return image and image.frames, audio and audio.seconds
    frames = None if frames is None else _checked_frames(frames)
    seconds = None if seconds is None else _checked_seconds(seconds)
    if image is None:
        if seconds is None:
            raise ValueError(
                f"frames: the model {config.name!r} generates no videos, so it has no frame rate for {frames} frames; "
                "give seconds."
            )
        return frames, seconds
    rate = image.frame_rate
    if frames is None:
        return max(1, math.ceil(seconds * rate - _ROUNDING)), seconds
    duration = frames / rate
    if seconds is None:
        if duration > MAX_SECONDS:
            raise ValueError(
                f"frames: {frames} frames last {duration:g} s; choose fewer, which last at most {MAX_SECONDS:g} s."
            )
        return frames, duration
    step = max(1 / rate, _unit_seconds(config))
    if abs(duration - seconds) > step * (1 + 1e-6):
        raise ValueError(
            f"frames, seconds: {frames} frames last {duration:g} s at {rate:g} frames per second, which is not the "
            f"{seconds:g} s that seconds asks for; give one of the two, or lengths that differ by at most {step:g} s."
        )
    return frames, seconds


def latent_shape(
    config: CoDiConfig,
    name: str,
    *,
    image_size: int | tuple[int | None, int | None] | None = None,
    frames: int | None = None,
    seconds: float | None = None,
) -> tuple[int, ...]:
    """Shape of the latent of one stream, without the batch axis.

    Parameters
    ----------
    config : CoDiConfig
        Configuration with the network and the autoencoder of this modality.
    name : {"text", "image", "video", "audio"}
    image_size : int or (width, height), optional
        Pixels of images and videos; None for the model's default size.
    frames, seconds : optional
        See `lengths`; one alone also sets the length of the other kind of stream.

    Returns
    -------
    tuple of int
        ``(D,)``, ``(C, H, W)``, ``(C, T, H, W)`` or ``(C, T, F)``.

    Raises
    ------
    ValueError
        For a size that does not fit the model. The message begins with the name of the argument.
    """
    network = config.diffuser.networks.get(modality(name).network)
    autoencoder = getattr(config, f"{modality(name).network}_autoencoder")
    if network is None or autoencoder is None or (name == "video" and not network.temporal):
        raise ValueError(f"The model {config.name!r} does not generate {name}: load one that does.")
    requested = frames
    frames, duration = lengths(config, frames, seconds)
    if name == "text":
        return (network.in_channels,)
    if name == "audio":
        samples = round(duration * autoencoder.mel.sample_rate)
        steps = audio_steps(samples, autoencoder, multiple_of(network))
        return network.in_channels, steps, autoencoder.mel.bands // downscale(autoencoder)
    sides = _sides(config, image_size)
    if name == "image":
        return network.in_channels, *sides
    if frames > MAX_CLIP_FRAMES:
        most = MAX_CLIP_FRAMES / autoencoder.frame_rate
        if requested is None:
            raise ValueError(
                f"seconds: {seconds:g} s are {frames} frames of a video, which has at most {MAX_CLIP_FRAMES}; choose "
                f"at most {most:g} s, or leave video out."
            )
        raise ValueError(
            f"frames: {frames} frames are out of range; choose 1 to {MAX_CLIP_FRAMES}, which last {most:g} s."
        )
    return network.in_channels, frames, *sides


def _sides(config: CoDiConfig, image_size: int | tuple[int | None, int | None] | None) -> list[int]:
    """Height and width of the latent of an image."""
    autoencoder = config.image_autoencoder
    multiple = downscale(autoencoder) * multiple_of(config.diffuser.networks["image"])
    width, height = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    sides = []
    for what, pixels in (("height", height), ("width", width)):
        what = what if isinstance(image_size, tuple) else "image_size"
        pixels = autoencoder.image_size if pixels is None else pixels
        if not 0 < pixels <= MAX_SIDE or pixels % multiple:  # nor NaN
            raise ValueError(
                f"{what}: {pixels} pixels do not fit the model {config.name!r}; choose a multiple of {multiple} up to "
                f"{MAX_SIDE} (its own size is {autoencoder.image_size})."
            )
        sides.append(int(pixels) // downscale(autoencoder))
    return sides


def _unit_seconds(config: CoDiConfig) -> float:
    """Length of a unit of audio latents in seconds; 0 if the model generates no audio."""
    network, autoencoder = config.diffuser.networks.get("audio"), config.audio_autoencoder
    if network is None or autoencoder is None:
        return 0.0
    return multiple_of(network) * step_samples(autoencoder) / autoencoder.mel.sample_rate


def _checked_frames(frames: int) -> int:
    try:
        whole = operator.index(frames)
    except TypeError:
        raise ValueError(f"frames: {frames} is not a whole number; choose 1 or more.") from None
    if whole < 1:
        raise ValueError(f"frames: {frames} frames are out of range; choose 1 to {MAX_CLIP_FRAMES}.")
    return whole


def _checked_seconds(seconds: float) -> float:
    if not 0 < seconds <= MAX_SECONDS:  # nor NaN
        raise ValueError(f"seconds: {seconds} s is out of range; choose more than 0, and at most {MAX_SECONDS:g} s.")
    return float(seconds)
