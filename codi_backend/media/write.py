"""Tensors as files and images."""

from __future__ import annotations

import os
import wave
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from ..config import CoDiConfig
from ..modalities import MODALITIES

_VIDEO_SIDE = 256  # pixels; players show smaller videos as stamps, or blurred
_BT709, _LIMITED = 1, 1  # as FFmpeg numbers colour spaces and ranges

# Dark to bright through purple and orange; interpolated linearly.
_COLOUR_MAP = np.float32([[10, 8, 30], [80, 18, 110], [190, 55, 85], [245, 140, 40], [250, 250, 190]])
_KINDS = {"text": "txt", "image": "png", "video": "mp4", "audio": "wav"}


def to_pil(pixels: Tensor) -> Image.Image:
    """``[3, H, W]`` in 0..1 -> a PIL image."""
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def save_wav(path: str | os.PathLike, waveform: Tensor, sample_rate: int) -> None:
    """Write mono ``[1, N]`` in -1..1 as a 16-bit WAV file."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((waveform.squeeze(0).clamp(-1, 1) * 32767).round().short().cpu().numpy().tobytes())


def save_video(
    path: str | os.PathLike,
    pixels: Tensor,
    frame_rate: float,
    waveform: Tensor | None = None,
    sample_rate: int | None = None,
) -> None:
    """Write ``[3, T, H, W]`` in 0..1 as MP4 (H.264), with mono ``[1, N]`` in -1..1 as its audio (AAC) if there is one.

    Small images are enlarged by whole numbers, pixel by pixel, to at least 256 on each side.
    """
    import av

    frames = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).cpu().numpy()
    zoom = -(-_VIDEO_SIDE // min(frames.shape[1:3]))
    if any(zoom * side % 2 for side in frames.shape[1:3]):  # colours are stored for squares of 2 x 2
        zoom *= 2
    frames = frames.repeat(zoom, 1).repeat(zoom, 2)
    with av.open(os.fspath(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        video = container.add_stream("h264", Fraction(frame_rate).limit_denominator(1000), options={"crf": "12"})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        codec = video.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED
        audio = None if waveform is None else container.add_stream("aac", sample_rate, layout="mono")
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            container.mux(video.encode(frame.reformat(format="yuv420p", dst_colorspace=_BT709)))
        container.mux(video.encode(None))
        if audio is not None:
            samples = waveform.clamp(-1, 1).float().cpu().numpy()
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", "mono")
            frame.sample_rate, frame.pts = sample_rate, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def spectrogram_image(mel: nn.Module, waveform: Tensor) -> Image.Image:
    """Mono ``[1, N]`` as an image of its log-mel, time to the right, pitch upwards; `mel` is a `LogMel`."""
    bands = mel(waveform[None].to(mel.window.device))[0, 0].cpu().numpy().T[::-1]
    low = np.log(mel.config.floor)
    level = np.clip((bands - low) / (2.5 - low), 0, 1) * (len(_COLOUR_MAP) - 1)
    below = np.minimum(level.astype(int), len(_COLOUR_MAP) - 2)
    share = (level - below)[..., None]
    colours = _COLOUR_MAP[below] * (1 - share) + _COLOUR_MAP[below + 1] * share
    return Image.fromarray(colours.astype(np.uint8))


def result_files(modalities: Collection[str], index: int, count: int) -> dict[str, str]:
    """Names of the files of result `index` of `count`, by modality."""
    suffix = "" if count == 1 else f"_{index + 1:0{len(str(count))}d}"
    return {name: f"{name}{suffix}.{_KINDS[name]}" for name in MODALITIES if name in modalities}


def write_result(out: Path, config: CoDiConfig, decoded: dict[str, Any], index: int, count: int) -> dict[str, str]:
    """Write result `index` of `count` into the folder `out`; returns the names of its files by modality.

    `decoded` is what `CoDi.decode` gives by modality: pixels ``[B, 3, H, W]`` and ``[B, 3, T, H, W]``, audio ``[B, 1,
    N]``, texts. A video gets the audio that was generated with it.
    """
    result = {name: values[index] for name, values in decoded.items()}
    files = result_files(result, index, count)
    rate = config.audio_autoencoder.mel.sample_rate if "audio" in result else None
    if "text" in result:
        (out / files["text"]).write_text(result["text"] + "\n", encoding="utf-8")
    if "image" in result:
        to_pil(result["image"]).save(out / files["image"])
    if "video" in result:
        frame_rate = config.image_autoencoder.frame_rate
        save_video(out / files["video"], result["video"], frame_rate, result.get("audio"), rate)
    if "audio" in result:
        save_wav(out / files["audio"], result["audio"], rate)
    return files
