"""Concepts: the emoji, their names and keywords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .archives import read_json

_COMPONENTS = 2  # the group of skin tones and hair, which are no concepts
_GROUPS = {8: "symbols", 9: "flags"}


@dataclass(frozen=True)
class Concept:
    """An emoji without variants of skin.

    Attributes
    ----------
    key : str
        Its code points as in "1f3f3-200d-1f308", without variation selectors; names of files begin with it.
    emoji : str
    name : str
        The name of the Unicode CLDR, without punctuation: "red apple", "flag of France".
    keywords : tuple of str
        Of the CLDR, those that the name does not contain.
    group : str
        "symbols", "flags" or "things".
    """

    key: str
    emoji: str
    name: str
    keywords: tuple[str, ...]
    group: str


def key_of(code_points: str) -> str:
    """The key of an emoji by its code points, joined by hyphens, in any case."""
    return "-".join(point for point in code_points.lower().split("-") if point != "fe0f")


def read_concepts(package: Path) -> list[Concept]:
    """The concepts in emojibase-data, in the order of the Unicode standard."""
    (records,) = read_json(package, "package/en/data.json")
    records = [record for record in records if record.get("group") not in (None, _COMPONENTS)]
    return [_concept(record) for record in sorted(records, key=lambda record: record["order"])]


def _concept(record: dict) -> Concept:
    name = _plain(record["label"])
    words = (word for word in record.get("tags", ()) if len(word) > 2 and word.replace(" ", "").isalpha())
    keywords = tuple(word for word in words if word not in name)
    group = _GROUPS.get(record["group"], "things")
    return Concept(key_of(record["hexcode"]), record["emoji"], name, keywords, group)


def _plain(label: str) -> str:
    """A name without colons and quotation marks."""
    kind, _, rest = label.partition(": ")
    name = label.replace(": ", ", ")
    if rest and kind in ("flag", "keycap"):
        name = f"flag of {rest}" if kind == "flag" else f"keycap {rest}"
    return name.translate(str.maketrans("’", "'", "“”"))


def by_emoji(concepts: Sequence[Concept], emoji: str) -> Concept | None:
    """The concept of an emoji."""
    return next((concept for concept in concepts if concept.emoji.rstrip("\ufe0f") == emoji.rstrip("\ufe0f")), None)
