"""Texts to token ids and back for the text autoencoder, by vocabularies that the user provides."""

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

from ..config import TextAutoencoderConfig
from .text_cleanup import close_up

BERT_FILE, GPT2_FILE = "vocab.txt", "vocab.json"
SPECIAL = ("<PAD>", "<BOS>", "<EOS>")


class Vocabulary:
    """The vocabularies of BERT (cased) and GPT-2 in one folder (SPEC section 5.3).

    `FileNotFoundError` if `vocab.txt` or `vocab.json` is not there; `ValueError` if one is of another model.
    """

    def __init__(self, folder: str | os.PathLike, config: TextAutoencoderConfig):
        self.positions, self.word_pieces = config.encoder.positions, config.word_pieces
        self.special = dict(enumerate(SPECIAL, config.decoder.vocab_size - len(SPECIAL)))
        words = _read(folder, BERT_FILE, "BERT (bert-base-cased)").rstrip("\n").split("\n")
        _check(BERT_FILE, len(words), config.encoder.vocab_size)
        self._encoder = _word_piece({word: i for i, word in enumerate(words)})
        ids = json.loads(_read(folder, GPT2_FILE, "GPT-2 (gpt2)"))
        _check(GPT2_FILE, len(ids), config.decoder.vocab_size - len(SPECIAL))
        self._tokens = {i: token for token, i in ids.items()}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids for BERT ``[B, L]``, padded with 0 and cut; lower-cased as released.

        Cut to BERT's positions, as CoDi does, a text loses its end; cut to `word_pieces`, as Versatile Diffusion does,
        it keeps it.
        """
        rows = [encoding.ids for encoding in self._encoder.encode_batch([text.lower() for text in texts])]
        if self.word_pieces is not None:
            rows = [[row[0], *row[1:-1][: self.word_pieces], row[-1]] for row in rows]
        longest = max(len(row) for row in rows)
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])[:, : self.positions]

    def text(self, ids: Sequence[int]) -> str:
        """Ids of GPT-2, the beginning and the end of the text included -> the words between these.

        As released: a first token that does not begin with a space sticks to the beginning and is lost with it.
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
    """Like `Vocabulary`, read once."""
    return Vocabulary(folder, config)


def find_vocabulary(folders: Iterable[Path]) -> Path | None:
    """The first folder that has both vocabulary files."""
    return next((f for f in folders if all((f / name).is_file() for name in (BERT_FILE, GPT2_FILE))), None)


def _read(folder: str | os.PathLike, name: str, model: str) -> str:
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: put the vocabulary file {name} of {model} there.")
    return path.read_text(encoding="utf-8")


def _check(name: str, size: int, expected: int) -> None:
    if size != expected:
        raise ValueError(f"{name} has {size} tokens, and this model needs {expected}: it is of another language model.")


def _word_piece(ids: dict[str, int]) -> Any:
    from tokenizers import BertWordPieceTokenizer

    # The texts come lower-cased, and keep their accents.
    return BertWordPieceTokenizer(ids, lowercase=False, strip_accents=False)
