"""Held videos, written with the audio that was generated for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..media.contents import split_start
from ..media.remux import write_film


def held_film(held: Sequence[tuple[str, str]], outputs: Sequence[str]) -> str | None:
    """The held video file that gets new audio in this run, if any, from pairs (modality, file)."""
    files = dict(held)
    return files.get("video") if "audio" in outputs and "audio" not in files else None


def film_names(files: Mapping[str, str]) -> tuple[str, ...]:
    """The two possible names of one result's film; the video's codec decides between them."""
    stem = _stem(files)
    return f"{stem}.mp4", f"{stem}.mkv"


def _stem(files: Mapping[str, str]) -> str:
    return Path(files["audio"]).stem.replace("audio", "film", 1)


def write_films(
    out: Path,
    held: str,
    files: Sequence[dict[str, str]],
    waveforms: Tensor,
    sample_rate: int,
    keep_sound: bool,
    track: int | None,
    report: Callable[[str], None],
) -> dict[str, Any] | None:
    """Write one film per result, beside its audio, and enter its name into `files` as "film".

    Parameters
    ----------
    out : Path
    held : str
        Path as the user gave it, with or without a start.
    files : sequence of dict
        Per result, the names of its files by modality.
    waveforms : Tensor
        ``[B, 1, N]`` in -1..1.
    sample_rate : int
        In Hz.
    keep_sound, track
        See `write_film`.
    report : callable
        Receives a message about the part with new audio, or about why no film was written.

    Returns
    -------
    dict or None
        The films' entry in ``result.json``; None if the video cannot be copied.
    """
    source, start = split_start("video", held)
    options = {"start": start or 0.0, "keep_sound": keep_sound, "track": track}
    film = None
    for names, waveform in zip(files, waveforms):
        target = out / _stem(names)
        try:
            film = write_film(target, source, waveform, sample_rate, **options)
        except ValueError as error:
            report(f"No film was written: {error}")
            return None
        names["film"] = film.path.name
    if film.end - film.begin < film.seconds - 0.05:
        rest = "its own audio" if keep_sound else "silence; --keep-sound keeps its own audio"
        part = f"from {film.begin:.2f} to {film.end:.2f} s"
        report(f"{source} lasts {film.seconds:.2f} s and has new audio {part}; the rest has {rest}.")
    return {
        "file": source,
        "seconds": round(film.seconds, 3),
        "audio": [round(film.begin, 3), round(film.end, 3)],
        "keep_sound": keep_sound,
    }
