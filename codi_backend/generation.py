"""`codi generate`: run the model and leave files and a page that a person can open."""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .media import save_wav, spectrogram_picture, to_picture
from .model import CoDi

_BAR_DELAY = 0.2  # seconds, so that a refused request shows no bar


def generate_to_folder(options: argparse.Namespace) -> None:
    """Generate, and write pictures, sounds, ``result.json`` and ``index.html`` into ``options.out``."""
    from tqdm import tqdm

    if options.count < 1:
        raise ValueError(f"--count {options.count} makes nothing: choose 1 or more.")
    seconds: dict[str, float] = {}
    begun = time.monotonic()

    def lap(stage: str) -> None:
        nonlocal begun
        seconds[stage] = round(time.monotonic() - begun, 3)
        begun = time.monotonic()

    source = options.model[0] if options.model == ["mini"] else options.model
    codi = _place(CoDi.load(source), options.device)
    lap("load")
    prompt = codi.prompt("text", [options.text] * options.count)
    lap("encode prompt")
    with tqdm(total=options.steps, desc="denoising", unit="step", file=sys.stderr, delay=_BAR_DELAY) as bar:
        latents = codi.generate_latents(
            prompt,
            options.outputs,
            steps=options.steps,
            guidance=options.guidance,
            seed=options.seed,
            sampler=options.sampler,
            alignment=options.alignment,
            strength=options.strength,
            progress=lambda done, total: bar.update(),
        )
    lap("denoise")
    decoded = {name: codi.decode(name, z).cpu() for name, z in latents.items()}
    lap("decode")
    options.out.mkdir(parents=True, exist_ok=True)
    rate = codi.config.audio_autoencoder.mel.sample_rate if "audio" in decoded else 0
    files = [_write(options.out, decoded, i, options.count, rate) for i in range(options.count)]
    lap("write files")
    result = {
        "model": codi.config.name,
        "prompts": {"text": options.text},
        "outputs": options.outputs,
        "seed": options.seed,
        "steps": options.steps,
        "sampler": options.sampler,
        "guidance": codi.config.guidance if options.guidance is None else options.guidance,
        "alignment": options.alignment,
        "strength": options.strength,
        "seconds": seconds,
        "peak_memory_mb": _peak_memory(),
        "files": files,
    }
    (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    spectrograms = [
        spectrogram_picture(codi.autoencoders["audio"].mel, decoded["audio"][i]) if "audio" in decoded else None
        for i in range(options.count)
    ]
    (options.out / "index.html").write_text(_page(result, spectrograms))
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"Wrote {', '.join(str(options.out / f) for row in files for f in row.values())}.")
        print(f"Open {options.out / 'index.html'} to see and hear.")


def _place(codi: CoDi, device: str) -> CoDi:
    try:
        return codi.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The device {device} cannot be used ({reason}): choose another, such as cpu.") from error


def _write(out: Path, decoded: dict[str, Tensor], index: int, count: int, rate: int) -> dict[str, str]:
    suffix = "" if count == 1 else f"_{index + 1:0{len(str(count))}d}"
    files = {}
    if "image" in decoded:
        files["image"] = f"image{suffix}.png"
        to_picture(decoded["image"][index]).save(out / files["image"])
    if "audio" in decoded:
        files["audio"] = f"audio{suffix}.wav"
        save_wav(out / files["audio"], decoded["audio"][index], rate)
    return files


def _peak_memory() -> int | None:
    """Peak memory of this process in MB; with a GPU in use, of its allocator. None where the system does not tell."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 1e6)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def _page(result: dict[str, Any], spectrograms: list[Image.Image | None]) -> str:
    cards = []
    for files, spectrogram in zip(result["files"], spectrograms):
        parts = []
        if "image" in files:
            parts.append(f'<img class="picture" src="{files["image"]}" alt="generated picture">')
        if "audio" in files:
            parts.append(f'<audio controls src="{files["audio"]}"></audio>')
            parts.append(
                f'<img class="spectrogram" src="{_data_url(spectrogram)}" alt="spectrogram">'
                "<small>time &rarr;, pitch &uarr;</small>"
            )
        cards.append(f"<figure>{''.join(parts)}</figure>")
    settings = ", ".join(f"{key} {result[key]}" for key in ("seed", "steps", "sampler", "guidance", "alignment"))
    title = html.escape(result["prompts"]["text"] or "(no prompt)")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }}
main {{ display: flex; flex-wrap: wrap; gap: 1.5rem }}
figure {{ margin: 0; width: 320px; display: grid; gap: .5rem }}
.picture {{ width: 320px; image-rendering: pixelated; border: 1px solid #ddd }}
.spectrogram {{ width: 320px; height: 128px; image-rendering: pixelated }}
audio {{ width: 320px }}
small, p {{ color: #666 }}
</style>
<h1>{title}</h1>
<p>{html.escape(settings)}; {sum(result["seconds"].values()):.1f} s</p>
<main>{"".join(cards)}</main>
</html>
"""


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
