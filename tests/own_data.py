"""A folder of a user's data, made up."""

import numpy as np
import torch
from PIL import Image

from codi_backend.media.write import save_wav


def write_image(path, colour, size=(80, 70)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_audio(path, pitch, seconds=0.7, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * rate)) / rate
    save_wav(path, torch.from_numpy(0.5 * np.sin(2 * np.pi * pitch * t)).float()[None], rate)


def make(folder, count=4):
    """`count` images with audio and captions."""
    for i in range(count):
        write_image(folder / f"item{i}.png", (40 * i, 200, 255 - 40 * i))
        write_audio(folder / f"item{i}.wav", 200 + 100 * i)
        (folder / f"item{i}.txt").write_text(f"thing number {i}\n")
    return folder
