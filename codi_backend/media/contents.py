"""Contents of the files that a command names, and a line about what is not used of them.

A part of an audio or video file is named by where it begins: ``film.mp4@12.5``, in seconds from time 0 of the file.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from ..config import AudioAutoencoderConfig, CoDiConfig, ImageAutoencoderConfig
from ..modalities import audio_steps, lengths, modality, multiple_of, step_samples
from .files import LONGEST
from .read import MediaInfo, probe, read_audio, read_image, read_text, read_video

_TOLERANCE = 0.05  # seconds; blocks of codecs are about so long


class Content(NamedTuple):
    """What was read.

    Attributes
    ----------
    value : str or Tensor or tuple
        Text, ``[1, 3, H, W]``, ``[1, 3, T, H, W]``, or ``[1, 1, N]`` and its rate in Hz.
    notes : tuple of str
        Sentences about what is not used of the file; none if all of it is.
    """

    value: Any
    notes: tuple[str, ...] = ()


def split_start(name: str, content: str) -> tuple[str, float | None]:
    """Path and start of a file of the modality `name`; a file that is called like that is meant as a whole."""
    path, at, start = content.rpartition("@")
    if name not in ("video", "audio") or not at or os.path.exists(content):
        return content, None
    if re.fullmatch(r"\d+\.?\d*|\.\d+", start):
        return path, float(start)
    if os.path.exists(path):
        raise ValueError(f"{content}: {start!r} is no start in seconds; write it as in {path}@12.5.")
    return content, None


def read_prompt(name: str, content: str, config: CoDiConfig, track: int | None = None) -> Content:
    """What prompts: a text itself, an image, audio, or frames that are spread evenly over a video."""
    if name == "text":
        return Content(content)
    if name == "image":
        return Content(read_image(content)[None])
    path, start = split_start(modality(name).name, content)
    if name == "video":
        usual = config.image_autoencoder or ImageAutoencoderConfig()
        start = start or 0.0
        video = read_video(path, usual.frames, start=start)[None]
        length = probe(path).video_seconds or 0.0
        if (length - start) * usual.frame_rate < usual.frames + 1:
            return Content(video)
        what = f"the prompt is {usual.frames} frames, evenly spread over"
        return Content(video, (_note(path, length, what, start, length),))
    info = probe(path)
    length = info.audio_seconds or 0.0
    window = config.audio_encoder.seconds if config.audio_encoder else length
    if start is not None:
        samples, rate = read_audio(path, start=start, seconds=min(window, LONGEST), track=track)
    elif length > LONGEST:
        start = (length - window) / 2
        samples, rate = read_audio(path, start=start, seconds=window, track=track)
    else:
        samples, rate = read_audio(path, track=track)
        length = samples.shape[-1] / rate
        start = max(0.0, (length - window) / 2)
    notes = _track_notes(path, info, track)
    if length > start + window + _TOLERANCE:
        notes += (_note(path, length, "the prompt is", start, start + window, choice=True),)
    return Content((samples[None], rate), notes)


def read_held(
    name: str,
    content: str,
    config: CoDiConfig,
    frames: int | None = None,
    seconds: float | None = None,
    track: int | None = None,
) -> Content:
    """What is held: of audio and video as much as is generated, at its own pace."""
    if name == "text":
        return Content(read_text(content))
    if name == "image":
        return Content(read_image(content)[None])
    path, start = split_start(modality(name).name, content)
    start = start or 0.0
    frames, seconds = lengths(config, frames, seconds)
    if name == "video":
        usual = config.image_autoencoder or ImageAutoencoderConfig()
        frames = frames or usual.frames
        value = read_video(path, frames, usual.frame_rate, start=start)[None]
        taken, info = frames / usual.frame_rate, probe(path)
        length, notes = info.video_seconds or 0.0, ()
    else:
        taken, info = _audio_seconds(config, seconds), probe(path)
        samples, rate = read_audio(path, start=start, seconds=min(taken, LONGEST), track=track)
        value, length, notes = (samples[None], rate), info.audio_seconds or 0.0, _track_notes(path, info, track)
    if length > start + taken + _TOLERANCE:
        notes += (_note(path, length, f"the {name} that is held is", start, start + taken, choice=True),)
    return Content(value, notes)


def _audio_seconds(config: CoDiConfig, seconds: float | None) -> float:
    """How long an audio latent lasts that is to last so long."""
    usual = config.audio_autoencoder or AudioAutoencoderConfig()
    network = config.diffuser.networks.get("audio")
    rate = usual.mel.sample_rate
    steps = audio_steps(round((seconds or usual.seconds) * rate), usual, multiple_of(network) if network else 1)
    return steps * step_samples(usual) / rate


def _note(path: str, length: float, what: str, begin: float, end: float, choice: bool = False) -> str:
    other = f"; {path}@SECONDS chooses another part" if choice else ""
    return f"{path} lasts {length:.2f} s: {what} the part from {begin:.2f} to {end:.2f} s{other}."


def _track_notes(path: str, info: MediaInfo, track: int | None) -> tuple[str, ...]:
    if track is not None or len(info.audio_tracks) < 2:
        return ()
    tracks = "; ".join(f"{number}: {what}" for number, what in enumerate(info.audio_tracks, 1))
    return (
        f"{path} has {len(info.audio_tracks)} audio tracks ({tracks}): the one that players choose is read; "
        "--audio-track N chooses another.",
    )
