"""A dataset as `codi dataset emoji` writes it, of made images and sounds whose labels are known."""

import csv

import numpy as np
from PIL import Image

from codi_backend.data.emoji.files import flac_bytes

COLOURS = {"apple": (220, 30, 30), "leaf": (30, 160, 60), "sea": (40, 60, 220), "flute": (150, 150, 20)}
STYLES = ("flat", "framed")
WORDS = {"apple": (400, 900, 2500), "leaf": (2500, 900, 400), "sea": (900, 400, 2500), "flute": (900, 2500, 400)}
HARMONICS = {"flute": (1,), "organ": (1, 2, 3, 4), "clarinet": (1, 3, 5)}
LENGTH = 40960


def picture(colour, size, left, side, style="flat"):
    pixels = np.full((size, size, 3), 255, np.uint8)
    top = size // 4
    if style == "framed":
        pixels[top - 3 : top + side + 3, left - 3 : left + side + 3] = 0
    pixels[top : top + side, left : left + side] = colour
    return pixels


def tone(harmonics, pitch, notes=1):
    time = np.arange(LENGTH) / 16000
    wave = np.zeros(LENGTH)
    for start in 0.1 + 0.4 * np.arange(notes):
        since = np.maximum(time - start, 0)
        note = sum(np.sin(2 * np.pi * pitch * h * since) for h in harmonics)
        wave += note * np.exp(-4 * since) * (time >= start)
    return 0.5 * wave / np.abs(wave).max()


def word(bands, seed):
    """Noise around three frequencies, one after the other."""
    rng, parts = np.random.default_rng(seed), []
    for middle in bands:
        spectrum = np.fft.rfft(rng.standard_normal(4800))
        frequencies = np.fft.rfftfreq(4800, 1 / 16000)
        parts.append(np.fft.irfft(spectrum * np.exp(-(((frequencies - middle) / 150) ** 2)), 4800))
    wave = np.concatenate([np.zeros(3000), *parts, np.zeros(LENGTH)])[:LENGTH]
    return 0.5 * wave / np.abs(wave).max()


def write_dataset(folder):
    """Four examples of each concept in a style, of its spoken name, and of an instrument; the last one is for tests."""
    rows = []
    for i in range(4):
        split = "test" if i == 3 else "train"
        for concept, colour in COLOURS.items():
            speech = f"speech-{concept}{i}.flac"
            (folder / speech).write_bytes(flac_bytes(word(WORDS[concept], i)))
            says = f'a man says "{concept}"'
            common = {"concept": concept, "split": split}
            rows.append(common | {"text": says, "audio": speech, "kind": "speech", "voice": f"{i}"})
            for style in STYLES:
                image, look = f"{concept}{i}{style}.png", f"a {concept}, {style} style"
                Image.fromarray(picture(colour, 64, 12 + 3 * i, 28 + i, style)).save(folder / image)
                shown = common | {"image": image, "style": style}
                rows.append(shown | {"text": look, "kind": "image"})
                rows.append(shown | {"text": f"{look}, and {says}", "audio": speech, "kind": "image+speech"})
        for name, harmonics in HARMONICS.items():
            audio, plays = f"{name}-{i}.flac", f"a {name} plays {('one', 'two', 'three', 'two')[i]} notes"
            (folder / audio).write_bytes(flac_bytes(tone(harmonics, 300 + 30 * i, (1, 2, 3, 2)[i])))
            heard = {"audio": audio, "split": split}
            rows.append(heard | {"text": plays, "kind": "instrument", "concept": name})
            if name == "flute":
                shown = {"image": f"flute{i}flat.png", "style": "flat", "concept": "flute"}
                text = f"a flute, flat style, and {plays}"
                rows.append(heard | shown | {"text": text, "kind": "image+instrument"})
    columns = ["text", "image", "audio", "split", "kind", "concept", "style", "voice"]
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder
