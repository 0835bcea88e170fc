"""A page with samples of the dataset, which needs no other file and no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from ...config import MelConfig
from ...media.read import read_audio
from ...media.write import spectrogram_image
from ...models.autoencoders import LogMel
from .rows import Row
from .splits import share

_PER_KIND = 24
_TYPES = {"png": "image/png", "webp": "image/webp", "flac": "audio/flac"}


def contact_sheet(folder: Path, rows: Sequence[Row]) -> str:
    """An HTML page with some rows of every kind."""
    mel = LogMel(MelConfig())
    parts = []
    for kind in dict.fromkeys(row.kind for row in rows):
        those = [row for row in rows if row.kind == kind]
        chosen = sorted(those, key=lambda row: share("contact sheet", row.text))[:_PER_KIND]
        cards = "".join(_card(folder, row, mel) for row in chosen)
        parts.append(f"<h2>{html.escape(kind)} <small>{len(those)} rows</small></h2><section>{cards}</section>")
    return (
        "<!doctype html><meta charset='utf-8'><title>Emoji dataset</title><style>"
        "body{font:13px system-ui;margin:2rem}section{display:flex;flex-wrap:wrap;gap:1rem}"
        "figure{margin:0;width:136px}img{width:128px;image-rendering:pixelated;display:block}audio{width:132px}"
        "</style>" + "".join(parts)
    )


def _card(folder: Path, row: Row, mel: LogMel) -> str:
    content = "".join(f'<img src="{_uri(folder / path)}" alt="">' for path in (row.image, row.video) if path)
    if row.audio:
        stream = io.BytesIO()
        spectrogram_image(mel, read_audio(folder / row.audio)[0]).save(stream, "png")
        content += (
            f'<img src="{_data(stream.getvalue(), "png")}" alt=""><audio controls src="{_uri(folder / row.audio)}">'
        )
        content += "</audio>"
    note = " (test)" if row.split == "test" else ""
    return f"<figure>{content}<figcaption>{html.escape(row.text)}{note}</figcaption></figure>"


def _uri(path: Path) -> str:
    return _data(path.read_bytes(), path.suffix[1:])


def _data(content: bytes, ending: str) -> str:
    return f"data:{_TYPES[ending]};base64,{base64.b64encode(content).decode()}"
