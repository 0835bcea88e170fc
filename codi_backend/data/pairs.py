"""A user's data as a torch Dataset, in the form of `ShapesAndChimes`."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ..autoencoders.mel import resample
from ..config import CoDiConfig
from ..media.read import read_audio, read_image, read_text, read_video
from ..modality import modality
from ..prompts.preprocess import square_image, square_video
from .dataset import ShapesAndChimes
from .entries import Entry, as_file, find_entries


class Pairs(Dataset):
    """Those entries of a user's data that have all of some modalities, read at the sizes of a model.

    An item is a dict with these modalities: ``image [3, S, S]`` and ``video [3, T, S, S]`` in 0..1, the central square
    of the file's; ``audio [1, N]`` at the model's rate, cut or padded with silence to its length; ``text`` str.

    Parameters
    ----------
    entries : sequence of Entry
        See `find_entries`.
    config : CoDiConfig
        The autoencoders say what sizes are read. `ValueError` for a modality without one; texts need none.
    modalities : sequence of str
    source : str
        What messages call the data.
    """

    def __init__(
        self, entries: Sequence[Entry], config: CoDiConfig, modalities: Sequence[str], source: str = "The data"
    ):
        for name in modalities:
            field = f"{modality(name).network}_autoencoder"
            if name != "text" and getattr(config, field) is None:
                raise ValueError(f"The model has no {name} autoencoder: train without {name}.")
        self.every, self.config, self.modalities, self.source = entries, config, tuple(modalities), source
        self.entries = [entry for entry in entries if entry.contents.keys() >= set(modalities)]

    @classmethod
    def find(cls, data: str | os.PathLike, config: CoDiConfig, modalities: Sequence[str]) -> Pairs:
        """What `find_entries` finds."""
        return cls(find_entries(data), config, modalities, str(data))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {name: self._read(name, self.entries[index].contents[name]) for name in self.modalities}

    def only(self, modalities: Sequence[str]) -> Pairs:
        """The same data, asked for other modalities."""
        return Pairs(self.every, self.config, modalities, self.source)

    def batch(self, step: int, size: int, seed: int, modalities: Sequence[str] | None = None) -> dict[str, Any]:
        """The items of one training step, stacked; texts are a list. A function of the arguments alone.

        Every entry comes once before any comes again, in an order that follows from the seed.
        """
        pairs = self if modalities is None or tuple(modalities) == self.modalities else self.only(modalities)
        return ShapesAndChimes.collate([pairs[row] for row in shuffled_rows(step, size, seed, len(pairs))])

    def _read(self, name: str, content: Any) -> Tensor | str:
        if name == "text" and isinstance(content, str):
            return content
        with as_file(content) as path:
            if name == "text":
                return read_text(path)
            if name == "audio":
                return self._fit_sound(*read_audio(path))
            sizes = self.config.image_autoencoder
            if name == "image":
                return square_image(read_image(path)[None], sizes.image_size)[0]
            return square_video(read_video(path, sizes.frames, sizes.frame_rate)[None], sizes.image_size)[0]

    def _fit_sound(self, samples: Tensor, rate: int) -> Tensor:
        sizes = self.config.audio_autoencoder
        length = round(sizes.seconds * sizes.mel.sample_rate)
        samples = resample(samples[:, : -(-length * rate // sizes.mel.sample_rate)], rate, sizes.mel.sample_rate)
        return F.pad(samples, (0, length - samples.shape[-1]))


def shuffled_rows(step: int, size: int, seed: int, count: int) -> list[int]:
    """Rows of one training step among `count`, shuffled anew for every pass over them."""
    if count == 0:
        raise ValueError("There is nothing to train on: the data hold no entry.")
    positions = range(step * size, (step + 1) * size)
    return [int(_order(seed, position // count, count)[position % count]) for position in positions]


@functools.lru_cache(4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, 4)).permutation(count)
