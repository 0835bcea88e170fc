"""Judges that compare with real files: concept and style of an image, spoken words, the instrument that plays.

A judge knows the training rows of a dataset of `codi dataset emoji`. Its accuracy on the rows that are held out bounds
what can be said of generated results by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from .features import image_features, style_features, timbre_features, word_features
from .manifest import read_file, rows_of

Extract = Callable[[Tensor], np.ndarray]

_SHRINKAGE = 0.3  # of the ridge regression, found on concepts that were left out


class Judge(Protocol):
    """Ranks labels."""

    labels: set[str]

    def rank(self, content: Tensor, count: int = 5) -> list[str]:
        """The best labels, each once, the best first.

        Parameters
        ----------
        content : Tensor
            An image ``[3, H, W]`` in 0..1, or audio ``[1, N]`` at 16 kHz, as the judge is for.
        count : int
            How many at most.
        """


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

    def __init__(self, features: np.ndarray, labels: Sequence[str], extract: Extract):
        self._features, self._labels, self._extract = features, list(labels), extract
        self._squares = (features**2).sum(1)
        self.labels = set(labels)

    def rank(self, content: Tensor, count: int = 5) -> list[str]:
        """See `Judge`."""
        features = self._extract(content)
        order = np.argsort(self._squares - 2 * self._features @ features, kind="stable")
        return list(dict.fromkeys(self._labels[row] for row in order))[:count]


class LinearJudge:
    """Predicts labels by ridge regression; the parameters are those of `NearestJudge`."""

    def __init__(self, features: np.ndarray, labels: Sequence[str], extract: Extract):
        self._names, self._extract = sorted(set(labels)), extract
        self._mean = features.mean(0)
        inputs = self._with_one(features)
        is_label = np.array([[name == label for name in self._names] for label in labels], float)
        gram = inputs.T @ inputs + _SHRINKAGE * np.eye(inputs.shape[1])
        self._weights = np.linalg.solve(gram, inputs.T @ is_label)
        self.labels = set(labels)

    def rank(self, content: Tensor, count: int = 5) -> list[str]:
        """See `Judge`."""
        scores = self._with_one(self._extract(content)[None])[0] @ self._weights
        return [self._names[i] for i in np.argsort(-scores, kind="stable")[:count]]

    def _with_one(self, features: np.ndarray) -> np.ndarray:
        return np.concatenate([features - self._mean, np.ones((len(features), 1))], 1)


@dataclass(frozen=True)
class _Kind:
    """What a judge learns from: the kinds of rows, the column of the files and that of the labels."""

    rows: tuple[str, ...]
    file: str
    label: str
    extract: Extract
    method: Callable[[np.ndarray, Sequence[str], Extract], Judge] = NearestJudge


_KINDS = {
    "concept": _Kind(("image",), "image", "concept", image_features),
    "style": _Kind(("image",), "image", "style", style_features, LinearJudge),
    "word": _Kind(("speech",), "audio", "concept", word_features),
    "instrument": _Kind(("instrument",), "audio", "concept", timbre_features),
    "sound": _Kind(("speech", "instrument"), "audio", "kind", timbre_features),
}
JUDGES = tuple(_KINDS)
"""The names of the judges."""


def build_judge(dataset: str | os.PathLike, name: str) -> Judge:
    """A judge that knows the training rows of a dataset.

    Parameters
    ----------
    name : {"concept", "style", "word", "instrument", "sound"}
        Concept and style of an image; of audio the spoken concept, the instrument, or whether it is "speech" or
        "instrument".

    Raises
    ------
    ValueError, FileNotFoundError
        With a sentence, if the dataset has no such rows or cannot be read.
    """
    kind = _KINDS[name]
    known = rows_of(Path(dataset), kind.rows, "train")
    features = np.stack([kind.extract(read_file(Path(dataset), row, kind.file)) for row in known])
    return kind.method(features, [row[kind.label] for row in known], kind.extract)


def measure(dataset: str | os.PathLike, name: str) -> dict[str, float]:
    """Accuracy of a judge on the held-out rows of the dataset.

    Returns
    -------
    dict
        "top 1" and "top 5": shares of right answers; "labels" and "examples": how many there are; "chance".
    """
    kind, judge = _KINDS[name], build_judge(dataset, name)
    held_out = rows_of(Path(dataset), kind.rows, "test")
    ranks = [(row[kind.label], judge.rank(read_file(Path(dataset), row, kind.file))) for row in held_out]
    return {
        "top 1": float(np.mean([ranked[0] == label for label, ranked in ranks])),
        "top 5": float(np.mean([label in ranked for label, ranked in ranks])),
        "labels": len(judge.labels),
        "examples": len(ranks),
        "chance": 1 / len(judge.labels),
    }
