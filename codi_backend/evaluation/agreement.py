"""What streams that were generated together agree on, and when they begin."""

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

NAMES = {"text": "text", "image": "image", "video": "video", "audio": "sound"}

_SCENES = [
    dict(zip(ATTRIBUTES, values))
    for values in itertools.product(COLOURS, SHAPES, COUNTS, TEMPI)
    if not is_held_out(*values[:3])
]
_AGREEMENT = 0.90
_SYNCHRONY = 0.10  # seconds


def coupling(records: Records) -> list[Figure]:
    """Agreement on the attributes that the prompts left out, jointly and independently."""
    figures: list[Figure] = []
    for run, streams in COUPLINGS.items():
        apart = records.get(independent(streams), ())
        name = " + ".join(NAMES[s] for s in streams)
        for attribute, right in _agreement(records.get(run, ()), streams).items():
            figures += share(f"{name}, jointly", attribute, right, target=_AGREEMENT)
        for attribute, right in _agreement(apart, streams).items():
            chance = _chance(apart, streams, attribute)
            figures += share(f"{name}, independent", attribute, right, target=chance, goal="chance")
        for attribute, right in _agreement(apart, streams).items():
            value = _by_frequencies(_left_open(apart, streams, attribute))
            figures.append(Figure(f"{name}, own frequencies", attribute, value, value, value, len(right)))
    return figures


def adherence(records: Records) -> list[Figure]:
    """How often each stream has what the prompt says, jointly and independently."""
    figures: list[Figure] = []
    made = [(" + ".join(NAMES[s] for s in streams), run, streams) for run, streams in COUPLINGS.items()]
    for together, run, streams in [*made, *(("independent", independent([s]), (s,)) for s in ALL)]:
        for stream, attribute in itertools.product(streams, ATTRIBUTES):
            right = [
                record[stream][attribute] == record["scene"][attribute]
                for record in records.get(run, ())
                if stream in record
                and attribute not in record["left_out"]
                and all(tells(stream, attribute, r["count"]) for r in (record["scene"], record[stream]))
            ]
            figures += share(f"{together} → {NAMES[stream]}", attribute, right)
    return figures


def synchrony(records: Records) -> list[Figure]:
    """How far the first onsets of video and sound lie apart."""
    figures: list[Figure] = []
    for row, run in (
        ("video + sound, jointly", "coupling_video_audio"),
        ("all four, jointly", "coupling_all"),
        ("independent", independent(["video", "audio"])),
    ):
        made = [r for r in records.get(run, ()) if "video" in r and "audio" in r]
        begun = [bool(r["video"]["onsets"] and r["audio"]["onsets"]) for r in made]
        first = [(r["video"]["onsets"][0], r["audio"]["onsets"][0]) for r, both in zip(made, begun) if both]
        errors = [abs(seen - heard) for seen, heard in first]
        strangers = [
            abs(seen - heard) for i, (seen, _) in enumerate(first) for j, (_, heard) in enumerate(first) if i != j
        ]
        chance = math.fsum(strangers) / len(strangers) if strangers else None
        target = (
            {"target": chance, "goal": "chance"} if row == "independent" else {"target": _SYNCHRONY, "goal": "at most"}
        )
        figures += mean(row, "error", errors, **target)
        if chance is not None:
            figures.append(Figure(row, "strangers", chance, chance, chance, len(strangers), "seconds"))
        figures += share(row, "both begin", begun)
    return figures


def _agreement(records: Sequence[Record], streams: Sequence[str]) -> dict[str, list[bool]]:
    """For each attribute whether the streams agree on it, in the results whose prompt left it out."""
    agreed = {}
    for attribute in ATTRIBUTES:
        if said := _left_open(records, streams, attribute):
            agreed[attribute] = [None not in values and len(set(values)) == 1 for values in said]
    return agreed


def _left_open(records: Sequence[Record], streams: Sequence[str], attribute: str) -> list[tuple[Any, ...]]:
    """What each stream makes of an attribute that the prompt left out; nothing where no two streams can tell it."""
    tellers = _tellers(streams, attribute)
    if len(tellers) < 2:
        return []
    return [
        tuple(record[s][attribute] for s in tellers)
        for record in records
        if attribute in record["left_out"]
        and all(s in record for s in tellers)
        # A single object has no tempo to agree on.
        and not (attribute == "tempo" and any(record[s]["count"] == 1 for s in tellers))
    ]


def _chance(records: Sequence[Record], streams: Sequence[str], attribute: str) -> float:
    """How often streams agree by chance that know the scenes of training, and what the prompt says of its own."""
    tellers, chances = len(_tellers(streams, attribute)), []
    for record in records:
        if attribute not in record["left_out"] or not all(stream in record for stream in streams):
            continue
        said = {a: record["scene"][a] for a in ATTRIBUTES if a not in record["left_out"]}
        counts = Counter(scene[attribute] for scene in _SCENES if said.items() <= scene.items())
        chances.append(math.fsum((n / counts.total()) ** tellers for n in counts.values()))
    return math.fsum(chances) / len(chances)


def _tellers(streams: Sequence[str], attribute: str) -> list[str]:
    return [s for s in streams if not (s == "image" and attribute == "tempo")]


def tells(stream: str, attribute: str, count: int | None) -> bool:
    """Whether a stream of `count` objects can tell an attribute; one object has no tempo, and neither has a picture."""
    return bool(_tellers([stream], attribute)) and not (attribute == "tempo" and count == 1)


def _by_frequencies(said: Sequence[tuple[Any, ...]]) -> float:
    """How often streams agree that draw independently from the values that each of them has."""
    counts = [Counter(values) for values in zip(*said)]
    values = set.intersection(*(set(c) for c in counts)) - {None}
    return math.fsum(math.prod(c[v] / len(said) for c in counts) for v in values)
