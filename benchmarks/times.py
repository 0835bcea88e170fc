"""What must be quick: the README's first command, importing the pack in ComfyUI, and drawing a scene of the data set.

    python benchmarks/times.py [--repeat 3]

The best of several counts. Importing needs a ComfyUI, as the tests in it do (`COMFYUI_PATH`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from host.comfy_host import find_comfyui

from codi_backend.data import sample_scene
from codi_backend.data.audio import render_audio
from codi_backend.data.images import render_image

ROOT = Path(__file__).resolve().parents[1]
PROMPT = ["--text", "three red stars, slowly", "--outputs", "text", "image", "video", "audio", "--seed", "0"]
SCENES = 25


def command() -> float:
    """Seconds of the stages of `codi generate`, from its result."""
    with tempfile.TemporaryDirectory() as folder:
        generate = [sys.executable, "-m", "codi_backend", "generate", *PROMPT, "--out", folder]
        subprocess.run(generate, cwd=ROOT, check=True, capture_output=True)
        return sum(json.loads((Path(folder) / "result.json").read_text())["seconds"].values())


def importing(comfyui: Path) -> float:
    """Seconds of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        script = ROOT / "tests" / "host" / "as_installed.py"
        subprocess.run([sys.executable, script, comfyui, ROOT, folder], cwd=folder, check=True, capture_output=True)
        return json.loads((Path(folder) / "result.json").read_text())["seconds"]


def scene() -> float:
    """Seconds for the picture and the sound of one, on average."""
    scenes = [sample_scene(7, i) for i in range(SCENES)]
    begun = time.perf_counter()
    for one in scenes:
        render_image(one)
        render_audio(one)
    return (time.perf_counter() - begun) / SCENES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    comfyui = find_comfyui()
    rows: dict[str, tuple[Callable[[], float], float]] = {"a scene": (scene, 0.005)}
    if comfyui is not None:
        rows["importing the pack"] = (lambda: importing(comfyui), 0.5)
    rows["the README's first command"] = (command, 60.0)
    print("| what | seconds | should be below |\n|---|---|---|")
    for what, (measure, limit) in rows.items():
        print(f"| {what} | {min(measure() for _ in range(repeat)):.3g} | {limit:g} |", flush=True)


if __name__ == "__main__":
    main()
