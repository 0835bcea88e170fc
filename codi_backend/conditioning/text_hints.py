"""What a user should know about a text: words that a small model never saw, and an end that is cut off."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence

from ..config import CoDiConfig, TextAutoencoderConfig, TextEncoderConfig
from ..models.autoencoders.words import split
from ..models.encoders.text import tokenizer

_NAMED = 6  # words in a sentence
_LISTED = 100  # of a vocabulary, at most


class TextHint(UserWarning):
    """A text can be encoded, but a part of it has no effect, or another than it states."""


def known_words(config: CoDiConfig) -> tuple[str, ...] | None:
    """Words and punctuation marks that occurred in the captions of a small model's training; None: no list is known."""
    return config.text_autoencoder.words if config.text_autoencoder else None


def text_hints(texts: Iterable[str], config: TextEncoderConfig, words: Collection[str] | None) -> list[str]:
    """A sentence for each thing that the user should know about prompts.

    Parameters
    ----------
    texts : iterable of str
    config : TextEncoderConfig
        Of the encoder, which has `positions` tokens for a text, its beginning and its end.
    words : collection of str, optional
        What `known_words` gives.
    """
    texts = list(dict.fromkeys(texts))
    return [*unknown_words(texts, words), *(hint for text in texts if (hint := _cut(text, config.positions - 2)))]


def unknown_words(texts: Iterable[str], words: Collection[str] | None) -> list[str]:
    """A sentence about the words of texts that are not among `words`; none where all are, or no list is known."""
    if words is None:
        return []
    unknown = list(dict.fromkeys(word for text in texts for word in split(text) if word not in words))
    if not unknown:
        return []
    named = ", ".join(f'"{_short(word)}"' for word in unknown[:_NAMED])
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    listed = sorted(words)
    rest = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return [
        f"The training captions of this model did not contain {named}{more}, so the result may not follow the text. "
        f"They contained: {' '.join(listed[:_LISTED])}{rest}"
    ]


def encoding_hints(texts: Iterable[str], config: TextAutoencoderConfig) -> list[str]:
    """As `text_hints`, for a text autoencoder: words that it does not have, and texts that are too long for it."""
    if config.words is None:
        return []
    texts = list(dict.fromkeys(texts))
    room = config.encoder.positions - 2
    long = [words for text in texts if len(words := split(text)) > room]
    return unknown_words(texts, config.words) + [
        f"The text has {len(words)} words and punctuation marks, of which the encoder reads the first {room}: "
        f'it ends after "{" ".join(map(_short, words[room - 3 : room]))}".'
        for words in long
    ]


def warn(hints: Sequence[str], stacklevel: int = 4) -> None:
    """Give hints as warnings of the category `TextHint`."""
    for hint in hints:
        warnings.warn(hint, TextHint, stacklevel)


def _cut(text: str, room: int) -> str | None:
    """A sentence about a text that has more tokens than there is room for."""
    encoder = tokenizer()
    tokens = encoder.encode(text)
    if len(tokens) <= room:
        return None
    kept = [encoder.decoder[token] for token in tokens[:room]]
    last = encoder.decode(tokens[:room]).split()[-3:]
    inside = "" if kept[-1].endswith("</w>") else " (in the middle of a word)"
    end = " ".join(_short(word, from_end=True) for word in last)
    return (
        f"The text has {len(tokens)} tokens, of which the encoder reads the first {room}: "
        f'it ends after "{end}"{inside}. Put what matters before that.'
    )


def _short(word: str, from_end: bool = False, most: int = 24) -> str:
    if len(word) <= most:
        return word
    return f"...{word[-most:]}" if from_end else f"{word[:most]}..."
