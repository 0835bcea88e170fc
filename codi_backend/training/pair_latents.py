"""Latents and prompt embeddings of a user's data, encoded once by frozen networks."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.broken import Broken
from ..data.checks import read_all
from ..data.contents import Content
from ..data.pairs import Pairs, grouped, shuffled_rows
from ..data.phrases import partial
from ..modalities import modality
from ..pipeline import CoDi
from .encoding import stored_latents
from .identity import data_digest, weights_digest

MOST_CROPS = 4  # of an entry that lasts longer than the model
_CHUNK = 8
_TIMED = ("audio", "video")

Place = tuple[float, int]
"""A crop's start in seconds, and the number of its augmented copy."""


@dataclass
class Table:
    """What the contents of one modality were encoded to.

    Attributes
    ----------
    rows : Tensor
        ``[N, ...]`` in half precision.
    places : dict of Content to dict of Place to int
        Rows by content, crop and copy.
    """

    rows: Tensor
    places: dict[Content, dict[Place, int]]


class PairLatents:
    """Scaled latents (unit variance, as the diffuser sees them), captions and prompt embeddings of a user's data.

    Attributes
    ----------
    pairs : Pairs
        The entries; those are left out that lack a caption.
    latents : dict of str to Table
        By stream. Contents that last longer than the model have several crops, at most `MOST_CROPS` an entry.
    embeddings : dict of str to Table
        By modality of prompts other than texts.
    phrases : bool
        Whether captions are phrases that commas separate, which `batch` can leave out.
    """

    def __init__(
        self,
        pairs: Pairs,
        latents: Mapping[str, Table],
        embeddings: Mapping[str, Table] | None = None,
        phrases: bool = False,
    ):
        self.pairs, self.latents, self.embeddings = pairs, dict(latents), dict(embeddings or {})
        self.phrases = phrases
        self._texts: dict[int, str] = {}
        self._streams: dict[tuple[str, ...], _Streams] = {}

    @classmethod
    def load_or_encode(
        cls,
        folder: Path,
        codi: CoDi,
        pairs: Pairs,
        streams: Sequence[str] | None = None,
        prompts: Sequence[str] = ("text",),
        workers: int = 0,
        report: Callable[[str], None] = print,
        broken: Broken | None = None,
        phrases: bool = False,
    ) -> PairLatents:
        """Encode the data, or read what earlier calls with the same data and networks left in `folder`.

        Parameters
        ----------
        pairs : Pairs
            Entries that lack a modality which they are asked for are left out.
        streams : sequence of str, optional
            Modalities to encode, of every entry those that it has; by default what `pairs` is asked for, but texts.
        prompts : sequence of str
            Modalities whose prompt embeddings are encoded; texts are not stored.
        workers : int
            Processes that read files.
        broken : Broken, optional
            Where entries are noted that cannot be read, if they are to be left out.

        Raises
        ------
        ValueError
            With the first few contents that cannot be read.
        """
        broken = broken or Broken()
        streams = [name for name in pairs.modalities if name != "text"] if streams is None else streams
        rate = codi.config.audio_autoencoder.mel.sample_rate if codi.config.audio_autoencoder else None

        def embedding(name: str, items: Tensor) -> Tensor:
            return codi.prompt(name, items, rate if name == "audio" else None).embedding[:, 0].half().cpu()

        def table(kind: str, name: str, encode: Callable[[str, Any], Tensor], network: torch.nn.Module) -> Table:
            path = folder / f"{kind}_{name}.safetensors"
            return _load_or_encode(path, pairs, name, encode, network, codi, workers, report, broken)

        latents = {
            name: table("pairs", name, functools.partial(stored_latents, codi), codi.autoencoders[_network(name)])
            for name in streams
        }
        embeddings = {
            name: table("embeddings", name, embedding, codi.prompt_encoders[_network(name)])
            for name in prompts
            if name != "text"
        }
        tables = {name: [t[name] for t in (latents, embeddings) if name in t] for name in {*latents, *embeddings}}
        usable = [
            row
            for row, entry in enumerate(pairs.entries)
            if all(
                entry.contents[name] in one.places
                for name, of_name in tables.items() if name in entry.contents
                for one in of_name
            )
        ]  # fmt: skip
        return cls(pairs.at(usable), latents, embeddings, phrases)

    def __len__(self) -> int:
        return len(self.pairs)

    def aligned(self, streams: Sequence[str]) -> dict[str, Tensor]:
        """The latents of entries with all of these streams, one row a crop and copy; equal rows belong together."""
        found = self._of(streams)
        places = [place for group in found.rows for place in found.places[group[0]].values()]
        return {name: self.latents[name].rows[[place[name] for place in places]] for name in streams}

    def batch(
        self,
        step: int,
        size: int,
        seed: int,
        streams: Sequence[str],
        prompts: Sequence[str] = ("text",),
        leave_out: float = 0.0,
        empty: float = 0.1,
    ) -> dict[str, Any]:
        """Latents and prompts of one step, as `SceneLatents.batch`; a function of the arguments alone.

        Every content comes once before any comes again, with any of its crops and copies. Where it occurs in several
        entries, the entry with the fewest other contents describes it. Its prompt is that of any entry, and entries
        with the same other modalities share a turn; of texts the prompt is their own entry's.

        Captions are empty with probability `empty`, and their phrases are left out with probability `leave_out` if
        `phrases` is set. `ValueError` for prompts that are not encoded.
        """
        if unknown := [name for name in prompts if name != "text" and name not in self.embeddings]:
            raise ValueError(f"The prompts of these data are their captions, not {', '.join(unknown)}.")
        rng = np.random.default_rng((seed, step, 2))
        found = self._of(streams)
        places: dict[str, list[int]] = {name: [] for name in streams}
        batch: dict[str, Any] = {"captions": [], "described": []}
        embeddings: list[Tensor | None] = []
        for number in shuffled_rows(step, size, seed, len(found.rows)):
            row = _choice(rng, found.rows[number])
            place = _choice(rng, list(found.places[row]))
            for name in streams:
                places[name].append(found.places[row][place][name])
            prompted = row if "text" in streams else _choice(rng, _choice(rng, found.others[number]))
            is_empty = rng.random() < empty
            contents = self.pairs.entries[prompted].contents
            kind = _choice(rng, [name for name in prompts if name in contents])
            caption = self._text(prompted)
            if self.phrases:
                caption = partial(caption, rng, leave_out)
            batch["captions"].append("" if is_empty else caption)
            batch["described"].append(self._text(row))
            embedding = None if is_empty or kind == "text" else self.embeddings[kind]
            if embedding is not None:
                of_content = embedding.places[contents[kind]]
                own = _own_place(kind, *place)
                embedding = embedding.rows[of_content.get(own, next(iter(of_content.values())))].float()
            embeddings.append(embedding)
        batch |= {name: self.latents[name].rows[places[name]].float() for name in streams}
        if self.embeddings:
            width = next(iter(self.embeddings.values())).rows.shape[1]
            batch["embedding"] = torch.stack([torch.zeros(width) if e is None else e for e in embeddings])
            batch["is_text"] = torch.tensor([e is None for e in embeddings])
        return batch

    def _text(self, row: int) -> str:
        if row not in self._texts:
            self._texts[row] = self.pairs.read_content("text", self.pairs.entries[row].contents["text"], 0.0)
        return self._texts[row]

    def _of(self, streams: Sequence[str]) -> _Streams:
        streams = tuple(streams)
        if streams not in self._streams:
            self._streams[streams] = _Streams(self, streams)
        return self._streams[streams]


class _Streams:
    """The rows of some streams.

    Attributes
    ----------
    rows : list of list of int
        By group of contents, rows of entries: see `grouped`.
    others : list of list of list of int
        By group, all rows of entries with these contents, by the modalities that these entries have.
    places : dict of int to dict of Place to dict of str to int
        By row of an entry, rows of tables by stream, of the crops that all streams have.
    """

    def __init__(self, data: PairLatents, streams: tuple[str, ...]):
        entries = data.pairs.entries
        having = [row for row, entry in enumerate(entries) if entry.contents.keys() >= set(streams)]
        if not having:
            raise ValueError(f"No entry of {data.pairs.source} has {' and '.join(streams)}: give such entries.")
        some = [entries[row] for row in having]
        self.rows = [[having[row] for row in group] for group in grouped(some, streams)]
        names = [name for name in streams if name != "text"] or list(streams)
        kinds: dict[tuple[Content, ...], dict[tuple[str, ...], list[int]]] = {}
        for row in having:
            contents = entries[row].contents
            by_kind = kinds.setdefault(tuple(contents[name] for name in names), {})
            by_kind.setdefault(tuple(sorted(contents)), []).append(row)
        self.others = [list(by_kind.values()) for by_kind in kinds.values()]
        self.places = {
            row: _common({name: data.latents[name].places[entries[row].contents[name]] for name in streams})
            for group in self.rows
            for row in group
        }


def _common(places: Mapping[str, Mapping[Place, int]]) -> dict[Place, dict[str, int]]:
    """Rows by stream of the crops and copies that all streams have: an image has one crop, a text also one copy."""
    timed = [rows for name, rows in places.items() if name in _TIMED]
    first = (timed or [rows for name, rows in places.items() if name != "text"] or list(places.values()))[0]
    found: dict[Place, dict[str, int]] = {}
    for start, copy in first:
        own = {name: _own_place(name, start, copy) for name in places}
        if all(own[name] in rows for name, rows in places.items()):
            found[start, copy] = {name: rows[own[name]] for name, rows in places.items()}
    return found


def _own_place(name: str, start: float, copy: int) -> Place:
    return (start if name in _TIMED else 0.0), (0 if name == "text" else copy)


def _load_or_encode(
    path: Path,
    pairs: Pairs,
    name: str,
    encode: Callable[[str, Any], Tensor],
    network: torch.nn.Module,
    codi: CoDi,
    workers: int,
    report: Callable[[str], None],
    broken: Broken,
) -> Table:
    """One modality's table, which is read from `path` or written there."""
    rows_of: dict[Content, list[int]] = {}
    for row, entry in enumerate(pairs.entries):
        if name in entry.contents:
            rows_of.setdefault(entry.contents[name], []).append(row)
    contents = list(rows_of)
    of_content = Pairs([pairs.entries[rows[0]] for rows in rows_of.values()], pairs.config, (name,), pairs.source)
    mark = _mark(codi, pairs, of_content, network)
    if path.exists():
        with safe_open(path, "pt") as file:
            known = file.metadata()
        if known["mark"] == mark:
            for entry, reason in json.loads(known["left_out"]):
                broken.add(entry, reason)
            broken.check(pairs.source)
            return _table(load_file(path)[name], contents, json.loads(known["places"]))
        report(f"{path} belongs to other data or networks: encoding again.")
    before = len(broken.faults)
    places: list[tuple[int, float, int]] = []
    read = functools.partial(_variants, pairs, name, contents, list(rows_of.values()))
    items = _items(read_all(of_content, workers, broken, read), places)
    rows: list[Tensor] = []
    while chunk := list(islice(items, _CHUNK)):
        rows.append(encode(name, chunk if name == "text" else torch.stack(chunk)))
        if len(rows) % 64 == 0:
            report(f"encoding {name}: {len({number for number, *_ in places})}/{len(contents)}")
    crops = len({(number, start) for number, start, _ in places})
    if more := sum(start > 0 for _, start, copy in places if copy == 0):
        report(
            f"{name}: contents that last 1.5 times as long as the model or more give {more} further crops, at most "
            f"{MOST_CROPS} an entry: {crops} are encoded."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = torch.cat(rows).contiguous()
    facts = {"places": json.dumps(places), "left_out": json.dumps(broken.faults[before:])}
    save_file({name: stored}, path, {"mark": mark} | facts)
    return _table(stored, contents, places)


def _table(rows: Tensor, contents: Sequence[Content], places: Sequence[tuple[int, float, int]]) -> Table:
    table = Table(rows, {})
    for row, (number, start, copy) in enumerate(places):
        table.places.setdefault(contents[number], {})[start, copy] = row
    return table


def _items(read: Iterator[list[Any]], places: list[tuple[int, float, int]]) -> Iterator[Any]:
    for variants in read:
        for place, item in variants:
            places.append(place)
            yield item


def _variants(
    pairs: Pairs, name: str, contents: Sequence[Content], rows_of: Sequence[Sequence[int]], number: int
) -> list[tuple[tuple[int, float, int], Any]]:
    """All crops and copies of a content, each with the content's number, its start and the number of the copy."""
    first = pairs.read_content(name, contents[number], 0.0)  # before its length is read: it may be faulty
    if name == "text" and not first:
        raise ValueError(f"The caption of {pairs.entries[rows_of[number][0]].name} is empty.")
    starts = {0.0}
    if name in _TIMED:
        for row in rows_of[number]:
            starts |= {position * pairs.spare(row) for position in pairs.crops(row, MOST_CROPS)}
    variants = [((number, 0.0, 0), first)]
    for start in sorted(starts):
        for copy in range(1 if name == "text" else pairs.augmentation.copies):
            if start or copy:
                item = pairs.read_content(name, contents[number], start, pairs.augmentation.copy(copy, number))
                variants.append(((number, start, copy), item))
    return variants


def _choice(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _network(name: str) -> str:
    return modality(name).network


def _mark(codi: CoDi, pairs: Pairs, of_content: Pairs, network: torch.nn.Module) -> str:
    """A digest of the files, how they are read, and the weights that encode them."""
    config, of_text = codi.config, of_content.modalities == ("text",)
    sizes = [config.image_autoencoder, config.audio_autoencoder, config.text_autoencoder if of_text else None]
    facts = (
        data_digest(of_content),
        pairs.modalities,
        pairs.augmentation,
        sizes,
        weights_digest([network]),
        MOST_CROPS,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()
