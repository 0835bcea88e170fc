"""A contact sheet of Shapes & Chimes."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
from PIL import Image

from ..autoencoders import LogMel
from ..config import MelConfig
from ..media.write import save_wav, spectrogram_picture, to_picture
from .dataset import ShapesAndChimes
from .world import FRAME_RATE, SAMPLE_RATE

_ZOOM = 3


def write_preview(out: Path, count: int, seed: int, split: str) -> Path:
    """Write ``index.html`` with `count` scenes seen, heard and said, and the files that it shows; returns its path."""
    if count < 1:
        raise ValueError(f"A preview of {count} scenes shows nothing: choose 1 or more.")
    data = ShapesAndChimes(count, ("image", "video", "audio", "text"), split=split, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    mel = LogMel(MelConfig())
    cards, tiles = [], []
    for i in range(count):
        item = data[i]
        picture = to_picture(item["image"])
        tiles.append(np.asarray(picture))
        frames = [
            to_picture(frame).resize((64 * _ZOOM, 64 * _ZOOM), Image.Resampling.NEAREST)
            for frame in item["video"].unbind(1)
        ]
        clip = {"save_all": True, "append_images": frames[1:], "duration": round(1000 / FRAME_RATE), "loop": 0}
        frames[0].save(out / f"{i}.webp", lossless=True, **clip)
        picture.save(out / f"{i}.png")
        save_wav(out / f"{i}.wav", item["audio"], SAMPLE_RATE)
        spectrogram_picture(mel, item["audio"]).save(out / f"{i}_sound.png")
        scene = item["scene"]
        facts = f"{scene.count} {scene.colour} {scene.shape}, {scene.tempo}, start {scene.start:.2f} s"
        cards.append(
            f'<figure><img src="{i}.png" alt=""><img src="{i}.webp" alt=""><img src="{i}_sound.png" alt="">'
            f'<audio controls src="{i}.wav"></audio><figcaption>&ldquo;{html.escape(item["text"])}&rdquo;'
            f"<br><small>{facts}</small></figcaption></figure>"
        )
    columns = min(count, 8)
    rows = [tiles[i : i + columns] for i in range(0, count, columns)]
    rows[-1] += [np.full_like(tiles[0], 255)] * (columns - len(rows[-1]))
    Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(out / "contact_sheet.png")
    page = out / "index.html"
    page.write_text(
        "<!doctype html><meta charset='utf-8'><title>Shapes &amp; Chimes</title><style>"
        "body{font:15px system-ui;margin:2rem;display:flex;flex-wrap:wrap;gap:1.5rem}figure{margin:0;width:600px}"
        "img{width:192px;height:192px;margin:0 4px 4px 0;image-rendering:pixelated}"
        "audio{width:592px}</style>" + "".join(cards)
    )
    return page
