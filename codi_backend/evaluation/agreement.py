"""Agreement of jointly generated streams on attributes and onsets."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.captions import ATTRIBUTES
from ..data.world import COLOURS, COUNTS, SHAPES, TEMPI, is_held_out
from .figures import Figure, mean, share
from .runs import ALL, COUPLINGS, independent

Record = Mapping[str, Any]
Records = Mapping[str, Sequence[Record]]

_SCENES = [
    dict(zip(ATTRIBUTES, values))
    for values in itertools.product(COLOURS, SHAPES, COUNTS, TEMPI)
    if not is_held_out(*values[:3])
]
_AGREEMENT = 0.90
_SYNCHRONY = 0.10  # seconds


def coupling(records: Records) -> list[Figure]:
    """Agreement on the attributes that the prompts leave out, jointly and independently."""
    figures: list[Figure] = []
    for run, streams in COUPLINGS.items():
        unaligned = records.get(independent(streams), ())
        name = " + ".join(streams)
        for attribute, right in _agreement(records.get(run, ()), streams).items():
            figures += share(f"{name}, jointly", attribute, right, target=_AGREEMENT)
        for attribute, right in _agreement(unaligned, streams).items():
            chance = _chance(unaligned, streams, attribute)
            figures += share(f"{name}, independent", attribute, right, target=chance, goal="chance")
        for attribute, right in _agreement(unaligned, streams).items():
            value = _by_frequencies(_left_out(unaligned, streams, attribute))
            figures.append(Figure(f"{name}, own frequencies", attribute, value, value, value, len(right)))
    return figures


def adherence(records: Records) -> list[Figure]:
    """Adherence of each stream to the attributes that the prompt states, jointly and independently."""
    figures: list[Figure] = []
    rows = [(" + ".join(streams), run, streams) for run, streams in COUPLINGS.items()]
    for label, run, streams in [*rows, *(("independent", independent([s]), (s,)) for s in ALL)]:
        for stream, attribute in itertools.product(streams, ATTRIBUTES):
            right = [
                record[stream][attribute] == record["scene"][attribute]
                for record in records.get(run, ())
                if stream in record
                and attribute not in record["left_out"]
                and all(has_attribute(stream, attribute, r["count"]) for r in (record["scene"], record[stream]))
            ]
            figures += share(f"{label} → {stream}", attribute, right)
    return figures


def synchrony(records: Records) -> list[Figure]:
    """Distance in seconds between the first onsets of video and audio."""
    figures: list[Figure] = []
    for row, run in (
        ("video + audio, jointly", "coupling_video_audio"),
        ("all four, jointly", "coupling_all"),
        ("independent", independent(["video", "audio"])),
    ):
        pairs = [
            (r["video"]["onsets"], r["audio"]["onsets"]) for r in records.get(run, ()) if {"video", "audio"} <= r.keys()
        ]
        begun = [bool(video and audio) for video, audio in pairs]
        first = [(video[0], audio[0]) for video, audio in pairs if video and audio]
        errors = [abs(video - audio) for video, audio in first]
        shuffled = [
            abs(video - audio) for i, (video, _) in enumerate(first) for j, (_, audio) in enumerate(first) if i != j
        ]
        chance = math.fsum(shuffled) / len(shuffled) if shuffled else None
        target = (
            {"target": chance, "goal": "chance"} if row == "independent" else {"target": _SYNCHRONY, "goal": "at most"}
        )
        figures += mean(row, "error", errors, **target)
        if chance is not None:
            figures.append(Figure(row, "shuffled", chance, chance, chance, len(shuffled), "seconds"))
        figures += share(row, "both begin", begun)
    return figures


def _agreement(records: Sequence[Record], streams: Sequence[str]) -> dict[str, list[bool]]:
    """By attribute, whether the streams agree on it, for each result whose prompt leaves it out."""
    agreed = {}
    for attribute in ATTRIBUTES:
        if judged := _left_out(records, streams, attribute):
            agreed[attribute] = [None not in values and len(set(values)) == 1 for values in judged]
    return agreed


def _left_out(records: Sequence[Record], streams: Sequence[str], attribute: str) -> list[tuple[Any, ...]]:
    """Each stream's value of an attribute that the prompt leaves out; empty if fewer than two streams have it."""
    judged = _with_attribute(streams, attribute)
    if len(judged) < 2:
        return []
    return [
        tuple(record[s][attribute] for s in judged)
        for record in records
        if attribute in record["left_out"]
        and all(s in record for s in judged)
        # A single object has no tempo.
        and not (attribute == "tempo" and any(record[s]["count"] == 1 for s in judged))
    ]


def _chance(records: Sequence[Record], streams: Sequence[str], attribute: str) -> float:
    """Chance agreement of independent streams that draw from the training scenes which the prompt allows."""
    streams_with, chances = len(_with_attribute(streams, attribute)), []
    for record in records:
        if attribute not in record["left_out"] or not all(stream in record for stream in streams):
            continue
        stated = {a: record["scene"][a] for a in ATTRIBUTES if a not in record["left_out"]}
        counts = Counter(scene[attribute] for scene in _SCENES if stated.items() <= scene.items())
        chances.append(math.fsum((n / counts.total()) ** streams_with for n in counts.values()))
    return math.fsum(chances) / len(chances)


def _with_attribute(streams: Sequence[str], attribute: str) -> list[str]:
    return [s for s in streams if not (s == "image" and attribute == "tempo")]


def has_attribute(stream: str, attribute: str, count: int | None) -> bool:
    """Whether a stream of `count` objects has an attribute: a single object has no tempo, nor has an image."""
    return bool(_with_attribute([stream], attribute)) and not (attribute == "tempo" and count == 1)


def _by_frequencies(judged: Sequence[tuple[Any, ...]]) -> float:
    """Expected agreement of independent streams with the value frequencies of these."""
    counts = [Counter(values) for values in zip(*judged)]
    values = set.intersection(*(set(c) for c in counts)) - {None}
    return math.fsum(math.prod(c[v] / len(judged) for c in counts) for v in values)
