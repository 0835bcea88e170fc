"""The film that a run held, written with the audio that was generated for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .contents import split_start
from .media.remux import write_film


def held_film(held: Sequence[tuple[str, str]], outputs: Sequence[str]) -> str | None:
    """The video file among (modality, file) that gets new audio from this run, if there is one."""
    files = dict(held)
    return files.get("video") if "audio" in outputs and "audio" not in files else None


def film_names(files: Mapping[str, str]) -> tuple[str, ...]:
    """Names that the film of one result may get, by the names of the result's files; the video's codec decides."""
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
    say: Callable[[str], None],
) -> dict[str, Any] | None:
    """Write the film once for each result, beside its audio, and enter it into `files` as "film".

    Parameters
    ----------
    out : Path
    held : str
        As the user named it, with a start or without.
    files : sequence of dict
        By result, the names of its files by modality.
    waveforms : Tensor
        ``[B, 1, N]`` in -1..1.
    sample_rate : int
        In Hz.
    keep_sound, track
        See `write_film`.
    say : callable
        Is given a sentence about the part that has new audio, or about why there is no film.

    Returns
    -------
    dict or None
        What ``result.json`` says of the films; None if the video cannot be copied.
    """
    source, start = split_start("video", held)
    options = {"start": start or 0.0, "keep_sound": keep_sound, "track": track}
    film = None
    for names, waveform in zip(files, waveforms):
        target = out / _stem(names)
        try:
            film = write_film(target, source, waveform, sample_rate, **options)
        except ValueError as error:
            say(f"No film was written: {error}")
            return None
        names["film"] = film.path.name
    if film.end - film.begin < film.seconds - 0.05:
        rest = "its own audio" if keep_sound else "silence; --keep-sound keeps its own audio"
        part = f"from {film.begin:.2f} to {film.end:.2f} s"
        say(f"{source} lasts {film.seconds:.2f} s and has new audio {part}; the rest has {rest}.")
    return {
        "file": source,
        "seconds": round(film.seconds, 3),
        "audio": [round(film.begin, 3), round(film.end, 3)],
        "keep_sound": keep_sound,
    }
