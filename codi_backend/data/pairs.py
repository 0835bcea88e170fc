"""A user's data as a torch Dataset, in the form of `ShapesAndChimes`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ..config import CoDiConfig
from ..media.read import probe, read_audio, read_image, read_video
from ..modalities import modality
from ..models.autoencoders import resample
from ..models.encoders.preprocess import square_image, square_video
from .augmentation import NONE, UNCHANGED, Augmentation, Variation
from .broken import Broken
from .contents import Content, Entry, as_file
from .dataset import ShapesAndChimes
from .entries import find_entries
from .text_bytes import read_caption


class Pairs(Dataset):
    """Those entries of a user's data that have all of some modalities, read at the sizes of a model.

    An item is a dict with these modalities: ``image [3, S, S]`` and ``video [3, T, S, S]`` in 0..1, the central square
    of the file's; ``audio [1, N]`` at the model's rate, cut or padded with silence to its length; ``text`` str. Audio
    and video that last longer than the model's are cropped: ``pairs[row]`` is their start, see `read` for others.

    Parameters
    ----------
    entries : sequence of Entry
        See `find_entries`.
    config : CoDiConfig
        Its autoencoders give the sizes. `ValueError` for a modality without one; texts need none.
    modalities : sequence of str
    source : str
        Name of the data in messages.
    augmentation : Augmentation
        Of what `batch` reads.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        config: CoDiConfig,
        modalities: Sequence[str],
        source: str = "The data",
        augmentation: Augmentation = NONE,
    ):
        for name in modalities:
            field = f"{modality(name).network}_autoencoder"
            if name != "text" and getattr(config, field) is None:
                raise ValueError(f"The model has no {name} autoencoder: train without {name}.")
        self.every, self.config, self.modalities, self.source = entries, config, tuple(modalities), source
        self.augmentation = augmentation
        self.entries = [entry for entry in entries if entry.contents.keys() >= set(modalities)]
        self.groups = grouped(self.entries, self.modalities)
        self._spare: dict[int, float] = {}

    @classmethod
    def find(
        cls,
        data: str | os.PathLike,
        config: CoDiConfig,
        modalities: Sequence[str],
        note: Callable[[str], None] | None = None,
        broken: Broken | None = None,
    ) -> Pairs:
        """What `find_entries` finds. Where audio is asked for, videos without a file for it give their own track."""
        entries = find_entries(data, note, broken)
        if "audio" in modalities:
            entries = [_with_own_audio(entry) for entry in entries]
        return cls(entries, config, modalities, str(data))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.read(row)

    def read(self, row: int, position: float = 0.0, variation: Variation = UNCHANGED) -> dict[str, Any]:
        """An item, whose audio and video are cropped at the same time.

        Parameters
        ----------
        row : int
        position : float
            Of the crop in content that is longer than the model's: from 0, its start, to 1, its end.
        variation : Variation
            A change of all contents.

        Raises
        ------
        ValueError, OSError
            With a sentence that names the file, or the entry if its caption is empty.
        """
        if not 0 <= row < len(self):
            raise IndexError(row)
        entry = self.entries[row]
        start = position * self.spare(row) if position else 0.0
        item: dict[str, Any] = {}
        with ExitStack() as stack:
            for name in self.modalities:
                content = entry.contents[name]
                if not isinstance(content, str):
                    content = stack.enter_context(as_file(content))
                item[name] = self._read(name, content, start, variation)
        if not item.get("text", "a caption"):
            raise ValueError(f"The caption of {entry.name} is empty.")
        return item

    def read_content(self, name: str, content: Content, start: float, variation: Variation = UNCHANGED) -> Any:
        """One content from `start` on, in seconds; errors as of `read`."""
        if isinstance(content, str):
            return content
        with as_file(content) as path:
            return self._read(name, path, start, variation)

    def spare(self, row: int) -> float:
        """Seconds by which an entry's audio and video exceed the model's length; at least 0."""
        if row not in self._spare:
            spare = []
            for name, model in self._seconds(row).items():
                with as_file(self.entries[row].contents[name]) as path:
                    info = probe(path)
                lasts = info.video_seconds if name == "video" else info.audio_seconds
                spare.append((lasts or 0.0) - model)
            self._spare[row] = max(0.0, min(spare, default=0.0))
        return self._spare[row]

    def crops(self, row: int, most: int) -> list[float]:
        """At most `most` positions of crops, spread over an entry: one if it lasts less than 1.5 times the model's."""
        seconds = max(self._seconds(row).values(), default=0.0)
        count = min(most, 1 + int(self.spare(row) / seconds + 0.5)) if seconds else 1
        return [k / max(1, count - 1) for k in range(count)]

    def at(self, rows: Sequence[int]) -> Pairs:
        """The same data with these rows only."""
        left_out = {id(self.entries[row]) for row in {*range(len(self))} - {*rows}}
        kept = [entry for entry in self.every if id(entry) not in left_out]
        return Pairs(kept, self.config, self.modalities, self.source, self.augmentation)

    def only(self, modalities: Sequence[str]) -> Pairs:
        """The same data, asked for other modalities."""
        return Pairs(self.every, self.config, modalities, self.source, self.augmentation)

    def batch(self, step: int, size: int, seed: int, modalities: Sequence[str] | None = None) -> dict[str, Any]:
        """The items of one training step, stacked; texts are a list. A function of the arguments alone.

        Every content comes once before any comes again, in an order that follows from the seed; of contents that occur
        in several entries, one entry is drawn each time. Longer content gets another random crop each time.
        """
        pairs = self if modalities is None or tuple(modalities) == self.modalities else self.only(modalities)
        rng = np.random.default_rng((seed, step, 6))
        positions = rng.random(size).tolist()
        groups = [pairs.groups[i] for i in shuffled_rows(step, size, seed, len(pairs.groups))]
        rows = [group[int(rng.integers(len(group)))] for group in groups]
        variations = [self.augmentation.draw(rng) for _ in rows]
        return ShapesAndChimes.collate([pairs.read(*arguments) for arguments in zip(rows, positions, variations)])

    def _seconds(self, row: int) -> dict[str, float]:
        """Seconds of the model's audio and video, of those that are asked for; of all of an entry's if none are."""
        names = self.modalities or self.entries[row].contents
        seconds = {}
        if "video" in names and self.config.image_autoencoder:
            seconds["video"] = self.config.image_autoencoder.frames / self.config.image_autoencoder.frame_rate
        if "audio" in names and self.config.audio_autoencoder:
            seconds["audio"] = self.config.audio_autoencoder.seconds
        return seconds

    def _read(self, name: str, content: str | Path, start: float, variation: Variation) -> Tensor | str:
        if name == "text":
            return content if isinstance(content, str) else read_caption(content)
        if name == "audio":
            seconds = self.config.audio_autoencoder.seconds * variation.speed
            samples, rate = read_audio(content, start=start, seconds=seconds)
            return self._fit_audio(samples, round(rate * variation.speed))
        sizes = self.config.image_autoencoder
        if name == "image":
            return variation.of_pixels(square_image(read_image(content)[None], sizes.image_size))[0]
        video = read_video(content, sizes.frames, sizes.frame_rate / variation.speed, start=start)
        video = square_video(video[None], sizes.image_size)[0]
        return variation.of_pixels(video.transpose(0, 1)).transpose(0, 1)

    def _fit_audio(self, samples: Tensor, rate: int) -> Tensor:
        sizes = self.config.audio_autoencoder
        length = round(sizes.seconds * sizes.mel.sample_rate)
        samples = resample(samples[:, : -(-length * rate // sizes.mel.sample_rate)], rate, sizes.mel.sample_rate)
        return F.pad(samples, (0, length - samples.shape[-1]))


def _with_own_audio(entry: Entry) -> Entry:
    """The entry with its video as audio, too, if the video has an audio track and there is no other audio."""
    video = entry.contents.get("video")
    if video is None or "audio" in entry.contents:
        return entry
    try:
        with as_file(video) as path:
            has_track = bool(probe(path).audio_tracks)
    except (ValueError, OSError):  # reported where the video is read
        has_track = True
    return Entry(entry.name, entry.contents | {"audio": video}) if has_track else entry


def grouped(entries: Sequence[Entry], modalities: Sequence[str]) -> list[list[int]]:
    """Rows by their contents of these modalities, of captions if there are no others.

    Of the rows of a group those stay that have the fewest contents besides: a caption of them describes no more than
    these contents.
    """
    names = [name for name in modalities if name != "text"] or list(modalities)
    groups: dict[tuple[Content, ...], list[int]] = {}
    for row, entry in enumerate(entries):
        groups.setdefault(tuple(entry.contents[name] for name in names), []).append(row)
    found = []
    for rows in groups.values():
        fewest = min(len(entries[row].contents) for row in rows)
        found.append([row for row in rows if len(entries[row].contents) == fewest])
    return found


def shuffled_rows(step: int, size: int, seed: int, count: int) -> list[int]:
    """Rows of one training step among `count`, shuffled anew for every pass over them."""
    if count == 0:
        raise ValueError("Training is not possible: the data hold no entry.")
    positions = range(step * size, (step + 1) * size)
    return [int(_order(seed, position // count, count)[position % count]) for position in positions]


@functools.lru_cache(4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, 4)).permutation(count)
