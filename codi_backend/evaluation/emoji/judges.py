"""Judges that compare with real files: concept and style of an image, spoken words, instrument and number of notes.

A judge knows the training rows of a dataset of `codi dataset emoji`. Its accuracy on the rows that are held out bounds
what can be said of generated results by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from .features import blurred, image_features, note_features, style_features, timbre_features, word_features
from .manifest import number_of_notes, read_file, rows_of

Extract = Callable[[Tensor], np.ndarray]

_SHRINKAGE = 0.3  # of the ridge regression, found on concepts that were left out
_FOLDS = 10


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
    """What a judge learns from: the kinds of rows, the column of the files, and the label of a row.

    With `distort` it learns from a distorted copy of each file as well. With `any_concept` its labels do not depend on
    the concept, so that it can be measured on concepts that it does not know.
    """

    rows: tuple[str, ...]
    file: str
    label: Callable[[Mapping[str, str]], str]
    extract: Extract
    method: Callable[[np.ndarray, Sequence[str], Extract], Judge] = NearestJudge
    distort: Callable[[Tensor], Tensor] | None = None
    any_concept: bool = False


_KINDS = {
    "concept": _Kind(("image",), "image", itemgetter("concept"), image_features),
    "style": _Kind(("image",), "image", itemgetter("style"), style_features, LinearJudge, blurred, True),
    "word": _Kind(("speech",), "audio", itemgetter("concept"), word_features),
    "instrument": _Kind(("instrument",), "audio", itemgetter("concept"), timbre_features),
    "notes": _Kind(("instrument",), "audio", number_of_notes, note_features, LinearJudge),
    "sound": _Kind(("speech", "instrument"), "audio", itemgetter("kind"), timbre_features),
}
JUDGES = tuple(_KINDS)
"""The names of the judges."""


def build_judge(dataset: str | os.PathLike, name: str) -> Judge:
    """A judge that knows the training rows of a dataset.

    Parameters
    ----------
    name : {"concept", "style", "word", "instrument", "notes", "sound"}
        Concept and style of an image; of audio the spoken concept, the instrument, the number of notes in words, or
        whether it is "speech" or "instrument".

    Raises
    ------
    ValueError, FileNotFoundError
        With a sentence, if the dataset has no such rows or cannot be read.
    """
    kind = _KINDS[name]
    return _learn(kind, Path(dataset), rows_of(Path(dataset), kind.rows, "train"))


def measure(
    dataset: str | os.PathLike, name: str, change: Callable[[Tensor], Tensor] | None = None
) -> dict[str, float]:
    """Accuracy of a judge on the held-out rows of the dataset.

    The style of an image is measured on the training rows too, those of a tenth of the concepts at a time, which the
    judge does not know then: few images are held out.

    Parameters
    ----------
    name : str
        See `build_judge`.
    change : callable, optional
        Applied to each image or audio before it is judged: encoding and decoding, for example.

    Returns
    -------
    dict
        "top 1" and "top 5": shares of right answers; "labels" and "examples": how many there are; "chance".
    """
    kind, folder = _KINDS[name], Path(dataset)
    known, held_out = (rows_of(folder, kind.rows, split) for split in ("train", "test"))
    judge = _learn(kind, folder, known)
    answers = _answers(judge, kind, folder, held_out, change)
    if kind.any_concept:
        concepts = sorted({row["concept"] for row in known})
        for fold in (set(concepts[i::_FOLDS]) for i in range(_FOLDS)):
            others = [row for row in known if row["concept"] not in fold]
            unknown = [row for row in known if row["concept"] in fold]
            if others and unknown:
                answers += _answers(_learn(kind, folder, others), kind, folder, unknown, change)
    return {
        "top 1": float(np.mean([ranked[0] == label for label, ranked in answers])),
        "top 5": float(np.mean([label in ranked for label, ranked in answers])),
        "labels": len(judge.labels),
        "examples": len(answers),
        "chance": 1 / len(judge.labels),
    }


def _learn(kind: _Kind, dataset: Path, rows: Sequence[dict[str, str]]) -> Judge:
    features, labels = [], []
    for row in rows:
        content = read_file(dataset, row, kind.file)
        for one in (content,) if kind.distort is None else (content, kind.distort(content)):
            features.append(kind.extract(one))
            labels.append(kind.label(row))
    return kind.method(np.stack(features), labels, kind.extract)


def _answers(
    judge: Judge,
    kind: _Kind,
    dataset: Path,
    rows: Sequence[dict[str, str]],
    change: Callable[[Tensor], Tensor] | None,
) -> list[tuple[str, list[str]]]:
    """The right label of each row, and the judge's ranking."""
    contents = (read_file(dataset, row, kind.file) for row in rows)
    return [(kind.label(row), judge.rank(change(c) if change else c)) for row, c in zip(rows, contents)]
