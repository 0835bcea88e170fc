"""Post-processing of generated texts as in the released code (SPEC section 5.3)."""

from __future__ import annotations

OPENING, CLOSING = "([{", "?!.,:;)]}"
GLUE = "<puncnext>"  # between punctuation and its word; it may remain in a text, as in the released code

_CONTRACTIONS = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def close_up(text: str) -> str:
    """Remove a tokeniser's spaces before punctuation and within contractions."""
    for apart, together in _CONTRACTIONS:
        text = text.replace(apart, together)
    return text


def drop_repeats(text: str, words_first: bool = True) -> str:
    """Remove words, then phrases, that repeat the preceding ones; without `words_first` only phrases.

    Phrases of one word are removed first, then those of two, and so on. Punctuation at the ends of words is a word.
    """
    words = text.split()
    if words_first:
        words = [word for i, word in enumerate(words) if i == 0 or word != words[i - 1]]
    tokens = [token for word in words for token in _split_punctuation(word)]
    length = 1
    while 2 * length <= len(tokens):
        start = 0
        while start + 2 * length <= len(tokens):
            if tokens[start : start + length] == tokens[start + length : start + 2 * length]:
                del tokens[start : start + length]
            else:
                start += 1
        length += 1
    return " ".join(tokens).replace(f" {GLUE} ", "")


def _split_punctuation(word: str) -> list[str]:
    inner = word.lstrip(OPENING)
    before = word[: len(word) - len(inner)]
    body = inner.rstrip(CLOSING)
    after = inner[len(body) :]
    tokens = [token for mark in before for token in (mark, GLUE)]
    if body:
        tokens.append(body)
    return tokens + [token for mark in after for token in (GLUE, mark)]
