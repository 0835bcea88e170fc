"""Tensors as files and pictures."""

from __future__ import annotations

import os
import wave

import numpy as np
from PIL import Image
from torch import Tensor, nn

# Dark to bright through purple and orange; interpolated linearly.
_COLOUR_MAP = np.float32([[10, 8, 30], [80, 18, 110], [190, 55, 85], [245, 140, 40], [250, 250, 190]])


def to_picture(pixels: Tensor) -> Image.Image:
    """``[3, H, W]`` in 0..1 -> a PIL image."""
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def save_wav(path: str | os.PathLike, waveform: Tensor, sample_rate: int) -> None:
    """Write mono ``[1, N]`` in -1..1 as a 16-bit WAV file."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((waveform.squeeze(0).clamp(-1, 1) * 32767).round().short().cpu().numpy().tobytes())


def spectrogram_picture(mel: nn.Module, waveform: Tensor) -> Image.Image:
    """Mono ``[1, N]`` as a picture of its log-mel, time to the right, pitch upwards; `mel` is a `LogMel`."""
    bands = mel(waveform[None].to(mel.window.device))[0, 0].cpu().numpy().T[::-1]
    low = np.log(mel.config.floor)
    level = np.clip((bands - low) / (2.5 - low), 0, 1) * (len(_COLOUR_MAP) - 1)
    below = np.minimum(level.astype(int), len(_COLOUR_MAP) - 2)
    share = (level - below)[..., None]
    colours = _COLOUR_MAP[below] * (1 - share) + _COLOUR_MAP[below + 1] * share
    return Image.fromarray(colours.astype(np.uint8))
