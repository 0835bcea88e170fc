"""The text autoencoder's tokenisers, by vocabulary files that the user provides."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...config import TextAutoencoderConfig
from .text_cleanup import close_up

BERT_FILE, GPT2_FILE = "vocab.txt", "vocab.json"
BERT, GPT2 = "BERT (bert-base-cased)", "GPT-2 (gpt2)"
SPECIAL = ("<PAD>", "<BOS>", "<EOS>")


class Vocabulary:
    """The tokenisers of BERT (cased) and GPT-2, from one folder (SPEC section 5.3).

    `FileNotFoundError` if `vocab.txt` or `vocab.json` is missing; `ValueError` if one belongs to another model.
    """

    def __init__(self, folder: str | os.PathLike, config: TextAutoencoderConfig):
        self.positions, self.word_pieces = config.encoder.positions, config.word_pieces
        self.special = dict(enumerate(SPECIAL, config.decoder.vocab_size - len(SPECIAL)))
        words = _read(folder, BERT_FILE, BERT).rstrip("\n").split("\n")
        _check(BERT_FILE, BERT, len(words), config.encoder.vocab_size)
        self._encoder = _word_piece({word: i for i, word in enumerate(words)})
        ids = json.loads(_read(folder, GPT2_FILE, GPT2))
        _check(GPT2_FILE, GPT2, len(ids), config.decoder.vocab_size - len(SPECIAL))
        self._tokens = {i: token for token, i in ids.items()}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids for BERT ``[B, L]``, padded with 0 and truncated; lower-cased as released.

        Truncation to BERT's positions, as in CoDi, removes the end token; truncation to `word_pieces`, as in Versatile
        Diffusion, keeps it.
        """
        rows = [encoding.ids for encoding in self._encoder.encode_batch([text.lower() for text in texts])]
        if self.word_pieces is not None:
            rows = [[row[0], *row[1:-1][: self.word_pieces], row[-1]] for row in rows]
        longest = max(len(row) for row in rows)
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])[:, : self.positions]

    def text(self, ids: Sequence[int]) -> str:
        """Ids of GPT-2 from begin to end token -> the text between these.

        As released, a first token without a leading space joins the begin token and is removed with it.
        """
        from tokenizers.decoders import ByteLevel

        pieces = []
        for special, group in itertools.groupby(ids, self.special.__contains__):
            if special:
                pieces += [f" {self.special[i]}" for i in group]
            else:
                pieces.append(ByteLevel().decode([self._tokens[i] for i in group]))
        return " ".join(close_up("".join(pieces)).split()[1:-1])


@functools.lru_cache(maxsize=4)
def read_vocabulary(folder: str | os.PathLike, config: TextAutoencoderConfig) -> Vocabulary:
    """A cached `Vocabulary`."""
    return Vocabulary(folder, config)


def find_vocabulary(folders: Iterable[Path]) -> Path | None:
    """The first folder that has both vocabulary files."""
    return next((f for f in folders if all((f / name).is_file() for name in (BERT_FILE, GPT2_FILE))), None)


def _read(folder: str | os.PathLike, name: str, model: str) -> str:
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: put the vocabulary file {name} of {model} there.")
    return path.read_text(encoding="utf-8")


def _check(name: str, model: str, size: int, expected: int) -> None:
    if size != expected:
        raise ValueError(f"{name} has {size} tokens, and this model needs {expected}: take the file of {model}.")


def _word_piece(ids: dict[str, int]) -> Any:
    from tokenizers import BertWordPieceTokenizer

    # Texts are lower-cased already, and keep their accents.
    return BertWordPieceTokenizer(ids, lowercase=False, strip_accents=False)
