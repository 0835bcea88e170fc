"""Captions of phrases that commas separate: "a red apple, fruit, flat style"."""

from __future__ import annotations

import numpy as np


def partial(caption: str, rng: np.random.Generator, leave_out: float) -> str:
    """The caption without some of its phrases, each of which is left out with probability `leave_out`."""
    phrases = caption.split(", ")
    return ", ".join(phrase for phrase, kept in zip(phrases, rng.random(len(phrases)) >= leave_out) if kept)
