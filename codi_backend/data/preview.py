"""A contact sheet of Shapes & Chimes."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
from PIL import Image

from ..checks.numbers import MAX_SEED, require_whole
from ..config import MelConfig
from ..media.output_folder import check_names, replacing
from ..media.write import save_wav, spectrogram_image, to_pil
from ..models.autoencoders import LogMel
from .dataset import ShapesAndChimes
from .world import FRAME_RATE, SAMPLE_RATE

_ZOOM = 3
_MOST = 1000
_PAGE, _SHEET, _TITLE = "index.html", "contact_sheet.png", "<title>Shapes &amp; Chimes</title>"
_ENDINGS = (".webp", ".png", ".wav", "_sound.png")


def write_preview(out: Path, count: int, seed: int, split: str) -> Path:
    """Write ``index.html`` with `count` scenes as image, video, audio and text, and their files; returns its path.

    The files of an earlier preview in the folder are replaced when all are written. `ValueError` if a file of
    another kind has one of their names.
    """
    if not 1 <= count <= _MOST:
        raise ValueError(f"A preview of {count} scenes is not possible: choose 1 to {_MOST}.")
    require_whole(seed, "seed", 0, MAX_SEED)
    data = ShapesAndChimes(count, ("image", "video", "audio", "text"), split=split, seed=seed)
    earlier = _earlier(out)
    names = [f"{i}{ending}" for i in range(count) for ending in _ENDINGS]
    check_names(out, (*names, _PAGE, _SHEET), earlier, ())
    with replacing(out, earlier) as folder:
        _write(folder, data)
    return out / _PAGE


def _earlier(out: Path) -> set[str]:
    """Names of the files of an earlier preview in the folder."""
    try:
        page = (out / _PAGE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return set()
    return {_PAGE, _SHEET, *re.findall(r'src="(\d+(?:_sound)?\.\w+)"', page)} if _TITLE in page else set()


def _write(out: Path, data: ShapesAndChimes) -> None:
    mel = LogMel(MelConfig())
    cards, tiles = [], []
    for i in range(len(data)):
        item = data[i]
        image = to_pil(item["image"])
        tiles.append(np.asarray(image))
        frames = [
            to_pil(frame).resize((64 * _ZOOM, 64 * _ZOOM), Image.Resampling.NEAREST)
            for frame in item["video"].unbind(1)
        ]
        animation = {"save_all": True, "append_images": frames[1:], "duration": round(1000 / FRAME_RATE), "loop": 0}
        frames[0].save(out / f"{i}.webp", lossless=True, **animation)
        image.save(out / f"{i}.png")
        save_wav(out / f"{i}.wav", item["audio"], SAMPLE_RATE)
        spectrogram_image(mel, item["audio"]).save(out / f"{i}_sound.png")
        scene = item["scene"]
        facts = f"{scene.count} {scene.colour} {scene.shape}, {scene.tempo}, start {scene.start:.2f} s"
        cards.append(
            f'<figure><img src="{i}.png" alt=""><img src="{i}.webp" alt=""><img src="{i}_sound.png" alt="">'
            f'<audio controls src="{i}.wav"></audio><figcaption>&ldquo;{html.escape(item["text"])}&rdquo;'
            f"<br><small>{facts}</small></figcaption></figure>"
        )
    columns = min(len(data), 8)
    rows = [tiles[i : i + columns] for i in range(0, len(data), columns)]
    rows[-1] += [np.full_like(tiles[0], 255)] * (columns - len(rows[-1]))
    Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(out / _SHEET)
    (out / _PAGE).write_text(
        f"<!doctype html><meta charset='utf-8'>{_TITLE}<style>"
        "body{font:15px system-ui;margin:2rem;display:flex;flex-wrap:wrap;gap:1.5rem}figure{margin:0;width:600px}"
        "img{width:192px;height:192px;margin:0 4px 4px 0;image-rendering:pixelated}"
        "audio{width:592px}</style>" + "".join(cards),
        encoding="utf-8",
    )
