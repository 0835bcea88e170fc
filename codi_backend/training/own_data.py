"""A user's data as training data of the recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.pairs import Pairs, shuffled_rows
from ..data.phrases import partial
from ..models.autoencoders.words import split
from ..pipeline import CoDi
from .pair_latents import PairLatents

_LEAVE_OUT = (0.0, 0.5)  # full captions and partial ones, half of the time each
_EXAMPLES = 4
MOST_WORDS = 20_000  # of a vocabulary


class OwnData:
    """Entries of a user's data; see `TrainingData` for the methods.

    Parameters
    ----------
    pairs : Pairs
        The entries, asked for what all of them have; nothing if stages are to take those that have their streams.
    """

    def __init__(self, pairs: Pairs):
        self.pairs = pairs
        self._of: dict[tuple[str, ...], Pairs] = {}

    def examples(self, streams: Sequence[str]) -> list[str]:
        pairs = self._only(tuple(dict.fromkeys((*streams, "text"))))
        if not pairs.entries:  # no entry has all of these streams
            pairs = self._only(("text",))
        rows = shuffled_rows(0, min(_EXAMPLES, len(pairs.entries)), 1, len(pairs.entries))
        return [pairs.read_content("text", pairs.entries[row].contents["text"], 0.0) for row in rows]

    def contents(self, modality: str, step: int, size: int, seed: int) -> dict[str, Any]:
        names = (modality, "text") if self._only((modality, "text")).entries else (modality,)
        batch = self._only(names).batch(step, size, seed)
        return {"contents": batch[modality], "captions": batch.get("text", [""] * size)}

    def texts(self, step: int, size: int, seed: int) -> list[str]:
        rng = np.random.default_rng((seed, step, 3))
        captions = self._only(("text",)).batch(step, size, seed)["text"]
        return [partial(caption, rng, float(rng.choice(_LEAVE_OUT))) for caption in captions]

    def sample(self, modality: str, count: int) -> Any:
        pairs = self._only((modality,))
        rows = shuffled_rows(0, min(count, len(pairs.groups)), 1, len(pairs.groups))
        items = [pairs.read(pairs.groups[row][0])[modality] for row in rows]
        return items if modality == "text" else torch.stack(items)

    def latents(
        self, folder: Path, codi: CoDi, streams: Sequence[str], prompts: Sequence[str], report: Callable[[str], None],
        workers: int,
    ) -> PairLatents:  # fmt: skip
        return PairLatents.load_or_encode(folder, codi, self.pairs, streams, prompts, workers, report, phrases=True)

    def words(self) -> tuple[str, ...]:
        """The words and punctuation marks of all captions in lower case, in alphabetical order.

        Of more than `MOST_WORDS` the most frequent ones.
        """
        pairs = self._only(("text",))
        counts = Counter(word for group in pairs.groups for word in split(pairs.read(group[0])["text"]))
        return tuple(sorted(word for word, _ in counts.most_common(MOST_WORDS)))

    def _only(self, modalities: tuple[str, ...]) -> Pairs:
        if modalities not in self._of:
            self._of[modalities] = self.pairs.only(modalities)
        return self._of[modalities]
