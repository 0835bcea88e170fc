"""Making the dataset: files first, each once, then the manifest and what describes it."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from . import packages, speech
from .animations import animations
from .attributions import attributions
from .concepts import GROUPS, SUBGROUPS, Concept, read_concepts
from .contact_sheet import contact_sheet
from .files import flac_bytes, png_bytes, webp_bytes, write_once
from .packages import KINDS
from .performances import INSTRUMENTS, performances
from .rows import Inventory, Row, counts, image_path, performance_path, rows, sample_path, speech_path, video_path
from .samples import samples
from .styles import STYLES, THREE_D, Drawings
from .synthesizer import Synthesizer

SIZES = (64, 128)
_INFO, _MANIFEST = "dataset.json", "metadata.csv"

Progress = Callable[[Iterable, str, int], Iterable]


def settings_of(out: Path, size: int, kinds: Sequence[str], groups: Sequence[str] = GROUPS) -> tuple[str, ...]:
    """The kinds that the folder will hold: those that are asked for and those that it holds already, in their order.

    Raises
    ------
    ValueError
        If the folder holds something else, or images of another size, or other groups of concepts.
    """
    if unknown := [group for group in groups if group not in (*GROUPS, *SUBGROUPS)]:
        raise ValueError(f"There is no group {unknown[0]!r}: choose from {', '.join((*GROUPS, *SUBGROUPS))}.")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"There is no kind {unknown[0]!r}: choose from {', '.join(KINDS)}.")
    if size not in SIZES:
        raise ValueError(f"Images of {size} pixels are not made: choose 64 or 128.")
    try:
        info = json.loads((out / _INFO).read_text(encoding="utf-8"))
        earlier, earlier_size, earlier_groups = info["kinds"], info["size"], info.get("groups", GROUPS)
    except FileNotFoundError:
        if out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
            raise ValueError(f"{out} holds other files: choose an empty or new folder with --out.") from None
        earlier, earlier_size, earlier_groups = [], size, groups
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{out / _INFO} is not of this dataset: choose another folder with --out.") from error
    if earlier_size != size:
        raise ValueError(f"{out} holds images of {earlier_size} pixels: choose that size, or another folder.")
    if set(earlier_groups) != set(groups):
        raise ValueError(f"{out} holds the groups {', '.join(earlier_groups)}: choose these, or another folder.")
    return tuple(kind for kind in KINDS if kind in kinds or kind in earlier)


def build(
    out: Path, folder: Path, size: int, kinds: Sequence[str], progress: Progress, groups: Sequence[str] = GROUPS
) -> dict[str, dict[str, int]]:
    """Make the dataset from the packages in a folder; what is there from an interrupted run is kept.

    Parameters
    ----------
    out : Path
        See `settings_of`.
    folder : Path
        With the packages that `packages.needed` names.
    size : int
        Of images and videos, in pixels.
    kinds : sequence of str
        Of `KINDS`.
    progress : callable
        Called with an iterable, what it makes, and how many there are; returns the iterable.
    groups : sequence of str
        Of `GROUPS` and `SUBGROUPS`: the concepts to make. Those that instruments show are made in any case.

    Returns
    -------
    dict
        Numbers of rows by kind and split.
    """
    info: dict[str, Any] = {"size": size, "kinds": list(kinds), "groups": list(groups)}
    _write(out / _INFO, json.dumps(info, indent=1) + "\n")
    files = {package.name: folder / package.file for package in packages.needed(tuple(kinds))}
    there = Inventory()
    if "emojibase-data" in files:
        there.concepts = read_concepts(
            files["emojibase-data"], groups, [instrument.emoji for instrument in INSTRUMENTS]
        )
    if "images" in kinds:
        _make_images(out, files, there, size, progress)
    if "videos" in kinds:
        _make_videos(out, files, there, size, progress)
    if "speech" in kinds:
        _make_speech(out, there, progress)
        info["espeak-ng"] = speech.version()
        info["held-out voices"] = sorted(speech.HELD_OUT)
    if "instruments" in kinds:
        _make_instruments(out, files["fluid-soundfont-gm"], there, progress)
    if "samples" in kinds:
        _make_samples(out, files["supersonic-scsynth-samples"], there, progress)
    made = list(rows(there))
    info["packages"] = {package.name: package.version for package in packages.needed(tuple(kinds))}
    info["rows"] = counts(made)
    _write(out / "ATTRIBUTIONS.md", attributions(kinds))
    _write(out / "index.html", contact_sheet(out, made))
    _write(out / _INFO, json.dumps(info, indent=1) + "\n")
    _write(out / _MANIFEST, _table(made))
    return info["rows"]


def _make_images(out: Path, files: dict[str, Path], there: Inventory, size: int, progress: Progress) -> None:
    for style in STYLES:
        drawings = Drawings(style, files[style.package])
        wanted = [concept.key for concept in there.concepts if style.has(concept) and concept.key in drawings.available]
        there.images[style.name] = set(wanted)
        todo = [key for key in wanted if not (out / image_path(style, key)).exists()]
        for key, image in progress(drawings.images(todo, size), f"images, {style.words} style", len(todo)):
            write_once(out / image_path(style, key), lambda image=image: png_bytes(image))


def _make_videos(out: Path, files: dict[str, Path], there: Inventory, size: int, progress: Progress) -> None:
    keys = {concept.key for concept in there.concepts if THREE_D.has(concept)}
    for package, archive in files.items():
        if not package.startswith("@lobehub/fluent-emoji-anim"):
            continue
        for key, frames in progress(animations(archive, keys, size), f"videos of {package}", 0):
            write_once(out / video_path(key), lambda frames=frames: webp_bytes(frames()))
            there.videos[key] = package


def _make_speech(out: Path, there: Inventory, progress: Progress) -> None:
    def make(voice: speech.Voice, concept: Concept) -> bool:
        path = out / speech_path(voice, concept.key)
        if not path.exists():
            samples = speech.speak(concept.name, voice)
            if samples is None:
                return False
            write_once(path, lambda: flac_bytes(samples))
        return True

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for voice in speech.VOICES:
            done = pool.map(make, [voice] * len(there.concepts), there.concepts)
            done = progress(done, f"speech, {voice.words}", len(there.concepts))
            there.speech[voice.name] = {concept.key for concept, fits in zip(there.concepts, done) if fits}


def _make_instruments(out: Path, soundfont: Path, there: Inventory, progress: Progress) -> None:
    there.performances = list(performances())
    synthesizer = Synthesizer(soundfont)
    for performance in progress(there.performances, "instruments", len(there.performances)):
        write_once(out / performance_path(performance), lambda it=performance: flac_bytes(synthesizer.play(it)))


def _make_samples(out: Path, archive: Path, there: Inventory, progress: Progress) -> None:
    captions = {}
    for name, caption, wave in progress(samples(archive), "samples", 0):
        write_once(out / sample_path(name), lambda wave=wave: flac_bytes(wave))
        captions[name] = caption
    there.samples = captions


def _table(made: Sequence[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in made)
    return stream.getvalue()


def _write(path: Path, text: str) -> None:
    """Replace a file that describes the dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)
