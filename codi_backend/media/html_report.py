"""The page that `codi generate` leaves: what was asked for, and everything that came out of it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F

from ..config import MelConfig
from ..models.autoencoders import LogMel, resample
from .write import spectrogram_image, to_pil

_THUMBNAIL = (288, 96)  # pixels at most

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
h1, h2 { line-height: 1.25; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; margin-bottom: .25rem }
h2 { font-size: 1.2rem; margin: 2.5rem 0 1rem }
main, .asked { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start }
.asked { margin: 1.5rem 0; padding: 1rem; background: #f5f5f5; border-radius: 6px }
figure { margin: 0; display: grid; gap: .5rem; justify-items: start }
main figure { width: 320px }
.image, video { width: 320px; image-rendering: pixelated; box-sizing: border-box; border: 1px solid #ddd }
.spectrogram { width: 320px; height: 128px; image-rendering: pixelated }
.thumbnail { height: 96px; border: 1px solid #ddd }
.asked blockquote { max-width: 22rem; align-self: center }
blockquote { margin: 0; padding-left: .75rem; border-left: 3px solid #bbb; overflow-wrap: anywhere }
audio { width: 320px }
small, p { color: #666 }
"""


def thumbnail(name: str, content: Any) -> Image.Image | None:
    """A thumbnail of a prompt: the image itself, a video's frames side by side, a spectrogram of audio.

    `content` is as `CoDi.prompt` takes it, a batch of one, audio with its rate; None for texts.
    """
    if name == "text":
        return None
    if name == "audio":
        samples, rate = content
        mel = MelConfig()
        samples = resample(samples[0, :, : 10 * rate], rate, mel.sample_rate)
        samples = F.pad(samples, (0, max(0, mel.n_fft - samples.shape[-1])))  # a frame needs as many
        return spectrogram_image(LogMel(mel), samples).resize(_THUMBNAIL, Image.Resampling.BILINEAR)
    pixels = content[0]
    if name == "video":
        frames = pixels[:, torch.linspace(0, pixels.shape[1] - 1, 3).round().long()]
        edged = F.pad(frames, (0, -(-frames.shape[-1] // 64)), value=0.8)
        pixels = torch.cat(edged.unbind(1), -1)
    image = to_pil(pixels)
    image.thumbnail(_THUMBNAIL, Image.Resampling.BOX)
    return image


def render_page(
    result: dict[str, Any],
    texts: Sequence[str],
    spectrograms: Sequence[Image.Image],
    prompts: Sequence[Image.Image | None],
    held: Sequence[Image.Image | None],
) -> str:
    """The page as HTML, which lies beside the files that it shows and needs nothing else.

    Parameters
    ----------
    result : dict
        What ``result.json`` holds.
    texts, spectrograms
        Of every result; empty if there are none.
    prompts, held
        Thumbnails of what `result` lists there.
    """
    title = html.escape(prompts_title([(p["modality"], p["content"]) for p in result["prompts"]]))
    settings = ", ".join(f"{key} {result[key]}" for key in ("seed", "steps", "sampler", "guidance", "alignment"))
    several = len(result["prompts"]) > 1
    asked = [
        _asked(prompt["modality"], prompt["content"], _note(prompt) if several else "prompt", image)
        for prompt, image in zip(result["prompts"], prompts)
        if several or image
    ] + [_asked(hold["modality"], hold["file"], "held", image) for hold, image in zip(result["held"], held)]
    kept = {hold["modality"] for hold in result["held"]}
    cards = [
        result_card(
            files, texts[i] if texts else "", spectrograms[i] if spectrograms else None, kept, result.get("film")
        )
        for i, files in enumerate(result["files"])
    ]
    return page(
        title,
        f"""<p>{html.escape(settings)}; {sum(result["seconds"].values()):.1f} s</p>
{f'<div class="asked">{"".join(asked)}</div>' if asked else ""}
<main>{"".join(cards)}</main>""",
    )


def page(title: str, body: str) -> str:
    """A page as HTML, of a title and what follows it, both in HTML."""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{_STYLE}</style>
<h1>{title}</h1>
{body}
</html>
"""


def prompts_title(prompts: Sequence[tuple[str, str]]) -> str:
    """A title that names prompts (modality, text or path)."""
    names = [content if name == "text" else Path(content).name for name, content in prompts]
    return " + ".join(filter(None, names)) or "(no prompt)"


def _note(prompt: dict[str, Any]) -> str:
    start = f", from {prompt['start']:g} s" if "start" in prompt else ""
    return f"weight {prompt['weight']:g}{start}"


def _asked(name: str, content: str, note: str, image: Image.Image | None) -> str:
    if name == "text" and note != "held":
        return (
            f"<figure><blockquote>{html.escape(content) or '(empty)'}</blockquote><small>text, {note}</small></figure>"
        )
    shown = f'<img class="thumbnail" src="{_data_url(image)}" alt="{name}">' if image else ""
    return f"<figure>{shown}<small>{name}, {note}: {html.escape(Path(content).name)}</small></figure>"


def result_card(
    files: Mapping[str, str],
    text: str,
    spectrogram: Image.Image | None = None,
    held: Collection[str] = (),
    film: dict[str, Any] | None = None,
) -> str:
    """A result as HTML: its files by modality, its text, and which of them were held."""
    parts = {
        "text": f"<blockquote>{html.escape(text)}</blockquote>",
        "image": f'<img class="image" src="{files.get("image")}" alt="image" loading="lazy">',
        "video": f'<video controls loop src="{files.get("video")}"></video>',
        "audio": f'<audio controls src="{files.get("audio")}"></audio>'
        + (_spectrogram(spectrogram) if spectrogram else ""),
        "film": _film(files["film"], film) if "film" in files else "",
    }
    shown = [parts[name] + (f"<small>{name}, held</small>" if name in held else "") for name in files]
    return f"<figure>{''.join(shown)}</figure>"


def _spectrogram(image: Image.Image) -> str:
    return (
        f'<img class="spectrogram" src="{_data_url(image)}" alt="spectrogram"><small>time &rarr;, pitch &uarr;</small>'
    )


def _film(file: str, film: dict[str, Any] | None) -> str:
    if film is None:
        return f'<video controls src="{file}"></video><small><a href="{file}">film</a> with the new audio</small>'
    begin, end = film["audio"]
    own = ", mixed with its own" if film["keep_sound"] else ""
    return (
        f'<video controls src="{file}"></video><small><a href="{file}">{html.escape(Path(film["file"]).name)}</a> with '
        f"the new audio from {begin:g} to {end:g} s{own}</small>"
    )


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
