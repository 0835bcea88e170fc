"""Nearest neighbours among real files: which concept an image is of, which instrument plays.

A judge knows the training rows of a dataset of `codi dataset emoji`. Its accuracy on the rows that are held out bounds
what can be said of generated results by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...data.broken import Broken
from ...data.manifest_rows import read_rows
from ...media.read import read_audio, read_image
from .features import image_features, timbre_features


class NearestJudge:
    """Names the label of the most similar known example.

    Parameters
    ----------
    features : array
        ``[N, F]`` of the known examples.
    labels : sequence of str
        One each.
    extract : callable
        From a content to its features ``[F]``.
    """

    def __init__(self, features: np.ndarray, labels: Sequence[str], extract: Callable[[Any], np.ndarray]):
        self._features, self._labels, self._extract = features, list(labels), extract
        self._squares = (features**2).sum(1)

    @property
    def labels(self) -> set[str]:
        """What it can answer."""
        return set(self._labels)

    def rank(self, content: Tensor, count: int = 5) -> list[str]:
        """The most similar labels, each once, the most similar first.

        Parameters
        ----------
        content : Tensor
            An image ``[3, H, W]`` in 0..1, or audio ``[1, N]`` at 16 kHz, as the judge is for.
        count : int
            How many at most.
        """
        features = self._extract(content)
        order = np.argsort(self._squares - 2 * self._features @ features, kind="stable")
        return list(dict.fromkeys(self._labels[row] for row in order))[:count]


def concept_judge(dataset: str | os.PathLike) -> NearestJudge:
    """Which concept an image is of, by the training rows of a dataset.

    `ValueError` or `FileNotFoundError` with a sentence if the dataset has no images or cannot be read.
    """
    return _judge(Path(dataset), "image")


def instrument_judge(dataset: str | os.PathLike) -> NearestJudge:
    """Which instrument plays, by the training rows of a dataset; errors as of `concept_judge`."""
    return _judge(Path(dataset), "instrument")


def measure(dataset: str | os.PathLike, kind: str) -> dict[str, float]:
    """Accuracy of a judge on the held-out rows of the dataset.

    Parameters
    ----------
    kind : {"image", "instrument"}

    Returns
    -------
    dict
        "top 1" and "top 5": shares of right answers; "labels" and "examples": how many there are; "chance".
    """
    judge = _judge(Path(dataset), kind)
    read = _READERS[kind][0]
    held_out = _rows(Path(dataset), kind, "test")
    ranks = [(row["concept"], judge.rank(read(Path(dataset, row[_COLUMN[kind]])))) for row in held_out]
    return {
        "top 1": float(np.mean([ranked[0] == label for label, ranked in ranks])),
        "top 5": float(np.mean([label in ranked for label, ranked in ranks])),
        "labels": len(judge.labels),
        "examples": len(ranks),
        "chance": 1 / len(judge.labels),
    }


_COLUMN = {"image": "image", "instrument": "audio"}
_READERS: dict[str, tuple[Callable[[Path], Tensor], Callable[[Tensor], np.ndarray]]] = {
    "image": (read_image, image_features),
    "instrument": (lambda path: read_audio(path)[0], timbre_features),
}


def _judge(dataset: Path, kind: str) -> NearestJudge:
    read, extract = _READERS[kind]
    known = _rows(dataset, kind, "train")
    features = np.stack([extract(read(dataset / row[_COLUMN[kind]])) for row in known])
    return NearestJudge(features, [row["concept"] for row in known], extract)


def _rows(dataset: Path, kind: str, split: str) -> list[dict[str, str]]:
    rows = [row.values for row in read_rows(dataset / "metadata.csv", ("text", "image", "audio"), Broken())]
    found = [row for row in rows if row.get("kind") == kind and row.get("split") == split]
    if not found:
        raise ValueError(f"{dataset} has no rows of the kind {kind} for {split}: make them with codi dataset emoji.")
    return found
