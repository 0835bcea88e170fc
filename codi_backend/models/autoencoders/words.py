"""The tokeniser of a text autoencoder with a small vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ...config import TextAutoencoderConfig
from .text_cleanup import close_up

_PAD, _UNKNOWN, _BEGIN, _END = range(4)
ENCODER_SPECIAL, DECODER_SPECIAL = 4, 3
"""Number of special tokens of the encoder, before the words, and of the decoder, after them."""


def split(text: str) -> list[str]:
    """Split a text into lower-case words and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


class WordList:
    """A tokeniser for the words of `TextAutoencoderConfig.words`, which needs no vocabulary files.

    The encoder's ids are padding, unknown, begin, end and then the words; the decoder's are the words and then padding,
    begin and end. `ValueError` if the configured vocabulary sizes do not match.
    """

    def __init__(self, config: TextAutoencoderConfig):
        words = config.words
        for name, size, needed in (
            ("an encoder", config.encoder.vocab_size, len(words) + ENCODER_SPECIAL),
            ("a decoder", config.decoder.vocab_size, len(words) + DECODER_SPECIAL),
        ):
            if size != needed:
                raise ValueError(
                    f"A list of {len(words)} words needs {name} with a vocab_size of {needed}, not {size}."
                )
        self.words = words
        self.positions, self._target_positions = config.encoder.positions, config.decoder.positions
        self.padding = len(words)
        self._ids = {word: i for i, word in enumerate(words)}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids for the encoder ``[B, L]``, padded with 0 and truncated to its positions."""
        rows = [[self._ids.get(word, _UNKNOWN - ENCODER_SPECIAL) + ENCODER_SPECIAL for word in split(t)] for t in texts]
        return _pad(([_BEGIN, *row, _END] for row in rows), _PAD)[:, : self.positions]

    def targets(self, texts: Sequence[str]) -> Tensor:
        """Texts -> target ids of the decoder ``[B, N]``, from begin to end token; unknown words are omitted."""
        rows = [[self._ids[word] for word in split(text) if word in self._ids] for text in texts]
        begin = self.padding + 1
        return _pad(([begin, *row, begin + 1] for row in rows), self.padding)[:, : self._target_positions]

    def text(self, ids: Iterable[int]) -> str:
        """Ids of the decoder -> a text, without special tokens and without spaces before punctuation."""
        return close_up(" ".join(self.words[i] for i in ids if i < self.padding))


def _pad(rows: Iterable[list[int]], padding: int) -> Tensor:
    rows = list(rows)
    longest = max(map(len, rows))
    return torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
