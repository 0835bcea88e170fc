"""Names of the streams of a joint latent, and what each stream's own LATENT held beside the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .latent_packing import split, split_masks, with_masks
from .stream_axes import axes_of, kind_of

# A LATENT's key with a dict per stream: {"name": str or None, "keys": dict}. Stock nodes hand on keys they do not know.
RECORDS = "codi_streams"
_SHARED = {"samples", "noise_mask", "batch_index", RECORDS}


def extra_keys(latent: dict) -> dict[str, Any]:
    """What a LATENT holds beside samples, mask, batch_index and records, such as type, sample_rate."""
    return {key: value for key, value in latent.items() if key not in _SHARED}


def records_of(latent: dict) -> list[dict]:
    """The name, or None, and the own extra keys of each stream.

    A joint latent of another node has no records; then each stream gets all keys, as from the stock node that separates
    the streams of LTX-2. Keys that a node has removed since joining are gone, and keys that it added belong to all.
    """
    now, records, count = extra_keys(latent), latent.get(RECORDS), len(split(latent["samples"]))
    if not isinstance(records, list) or len(records) != count:
        return [{"name": None, "keys": dict(now)} for _ in range(count)]
    known = {key for record in records for key in record["keys"]}
    new = {key: value for key, value in now.items() if key not in known}
    return [
        {"name": record["name"], "keys": {k: v for k, v in record["keys"].items() if k in now} | new}
        for record in records
    ]


def names_of_streams(latent: dict) -> list[str]:
    """The name of each stream: as recorded, else its modality from its shape; repeated ones get a number."""
    given = [
        record["name"] or kind_of(axes_of(stream.shape))
        for record, stream in zip(records_of(latent), split(latent["samples"]))
    ]
    counts = [given[: i + 1].count(name) for i, name in enumerate(given)]
    return [name if count == 1 else f"{name} {count}" for name, count in zip(given, counts)]


def joined(latents: Sequence[dict], streams: list[Tensor], masks: list[Tensor | None], records: list[dict]) -> dict:
    """A LATENT of streams with records. Of keys that several latents have, the first one's is at the top level."""
    merged: dict[str, Any] = {}
    for latent in reversed(latents):
        merged |= {key: value for key, value in latent.items() if key != RECORDS}
    return with_masks(merged, streams, masks) | {RECORDS: records}


def one_stream(latent: dict, index: int) -> dict:
    """The LATENT of a single stream of a joint one, with its own mask and keys."""
    stream, mask = split(latent["samples"])[index], split_masks(latent)[index]
    record = records_of(latent)[index]
    single = dict(record["keys"])
    if "batch_index" in latent:
        single["batch_index"] = latent["batch_index"]
    if record["name"]:
        single[RECORDS] = [record]
    return with_masks(single, [stream], [mask])


def numbers_of(text: str, latent: dict, source: str) -> list[int]:
    """The indices of streams in a text such as ``1, audio`` of numbers from 1 and names. Empty for an empty text.

    `ValueError` about the node's input `source`.
    """
    names = names_of_streams(latent)
    by_name = {name.lower(): index for index, name in enumerate(names)}
    found = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word.lower() in by_name:
            found.append(by_name[word.lower()])
            continue
        # Numbers may be separated by spaces alone.
        for part in word.split():
            if not part.isdecimal():
                raise ValueError(
                    f"{source}: {part!r} is neither a number nor the name of a stream; this latent has "
                    f"{listed(names)}, so give numbers or names such as 1, {names[-1]}."
                )
            if not 1 <= int(part) <= len(names):
                raise ValueError(
                    f"{source}: there is no stream {part} in this latent, which has {listed(names)}; choose another."
                )
            found.append(int(part) - 1)
    return list(dict.fromkeys(found))


def number_of(text: str, latent: dict, source: str) -> int:
    """The index of the one stream that a text gives by number or name. `ValueError` about the input `source`."""
    found = numbers_of(text, latent, source)
    if len(found) != 1:
        raise ValueError(f"{source}: {text!r} is not one stream; give a number or a name, such as 1.")
    return found[0]


def listed(names: Sequence[str]) -> str:
    """Names with their numbers, for messages."""
    return ", ".join(f"{number} ({name})" for number, name in enumerate(names, start=1))
