"""Concepts: the emoji, their names and keywords."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from .archives import read_json

_COMPONENTS = 2  # the group of skin tones and hair, which are no concepts
_GROUPS = {
    **{0: "smileys", 1: "people", 3: "animals", 4: "food", 5: "travel"},
    **{6: "activities", 7: "objects", 8: "symbols", 9: "flags"},
}
GROUPS = tuple(_GROUPS.values())
"""The groups of the Unicode standard, in its order."""
SUBGROUPS = tuple(
    """
    face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy face-unwell face-hat
    face-glasses face-concerned face-negative face-costume cat-face monkey-face heart emotion
    hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands hand-prop body-parts person
    person-gesture person-role person-fantasy person-activity person-sport person-resting family person-symbol
    skin-tone hair-style
    animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug plant-flower plant-other
    food-fruit food-vegetable food-prepared food-asian food-sweet drink dishware
    place-map place-geographic place-building place-religious place-other transport-ground transport-water
    transport-air hotel time sky-weather
    event award-medal sport game arts-crafts
    clothing sound music musical-instrument phone computer light-video book-paper money mail writing office lock
    tool science medical household other-object
    transport-sign warning arrow religion zodiac av-symbol gender math punctuation currency other-symbol keycap
    alphanum geometric
    flag country-flag subdivision-flag
    """.split()
)
"""The subgroups of the Unicode standard by their numbers in emojibase-data."""


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
    group, subgroup : str
        Of `GROUPS` and `SUBGROUPS`.
    """

    key: str
    emoji: str
    name: str
    keywords: tuple[str, ...]
    group: str
    subgroup: str = ""


def key_of(code_points: str) -> str:
    """The key of an emoji by its code points, joined by hyphens, in any case."""
    return "-".join(point for point in code_points.lower().split("-") if point != "fe0f")


def read_concepts(package: Path, groups: Collection[str] = GROUPS, others: Collection[str] = ()) -> list[Concept]:
    """The concepts in emojibase-data of these groups and subgroups, and of some other emoji.

    They are in the order of the standard.
    """
    (records,) = read_json(package, "package/en/data.json")
    records = [record for record in records if record.get("group") not in (None, _COMPONENTS)]
    concepts = [_concept(record) for record in sorted(records, key=lambda record: record["order"])]
    wanted = {_bare(emoji) for emoji in others}
    return [c for c in concepts if not {c.group, c.subgroup}.isdisjoint(groups) or _bare(c.emoji) in wanted]


def _concept(record: dict) -> Concept:
    name = _plain(record["label"])
    words = (word for word in record.get("tags", ()) if len(word) > 2 and word.replace(" ", "").isalpha())
    keywords = tuple(word for word in words if word not in name)
    group = _GROUPS[record["group"]]
    return Concept(key_of(record["hexcode"]), record["emoji"], name, keywords, group, SUBGROUPS[record["subgroup"]])


def _plain(label: str) -> str:
    """A name without colons and quotation marks."""
    kind, _, rest = label.partition(": ")
    name = label.replace(": ", ", ")
    if rest and kind in ("flag", "keycap"):
        name = f"flag of {rest}" if kind == "flag" else f"keycap {rest}"
    return name.translate(str.maketrans("’", "'", "“”"))


def by_emoji(concepts: Sequence[Concept], emoji: str) -> Concept | None:
    """The concept of an emoji."""
    return next((concept for concept in concepts if _bare(concept.emoji) == _bare(emoji)), None)


def _bare(emoji: str) -> str:
    return emoji.rstrip("\ufe0f")
