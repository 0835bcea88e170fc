"""A picture of what the emoji model generates: image, audio and text together, for fixed prompts.

    python benchmarks/emoji_gallery.py --out docs/emoji.webp [--model emoji]

The first prompt has seed 0, the second one seed 1, and so on. Each result is made once, with the model's own settings.
Audio is drawn as a mel spectrogram, time to the right and pitch upwards.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

import codi_backend as cb
from codi_backend.media.write import spectrogram_image, to_pil

PROMPTS = (
    "a penguin, flat style",
    "a strawberry, 3D style",
    "a trumpet, Twemoji style",
    "fruit, Noto style",
    "3D style",
    "",
)
OUTPUTS = ("text", "image", "audio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the picture: .webp, .png or .jpg")
    parser.add_argument("--model", nargs="+", default=["emoji"])
    options = parser.parse_args()
    codi = cb.CoDi.load(options.model)
    figure, axes = pyplot.subplots(2, len(PROMPTS), figsize=(13.2, 4.6), height_ratios=(3, 2), layout="constrained")
    for seed, (prompt, (upper, lower)) in enumerate(zip(PROMPTS, axes.T)):
        result = codi.generate(codi.prompt("text", [prompt]), OUTPUTS, seed=seed)
        upper.imshow(to_pil(result["image"][0]), interpolation="lanczos")
        upper.set_title(f"“{prompt}”" if prompt else "(empty prompt)", fontsize=10)
        spectrogram = spectrogram_image(codi.autoencoders["audio"].mel, result["audio"]["waveform"][0])
        lower.imshow(spectrogram, aspect="auto")
        lower.set_xlabel("\n".join(textwrap.wrap(result["text"][0], 26)), fontsize=10)
        print(f"{seed}  {prompt!r}: {result['text'][0]}", flush=True)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
