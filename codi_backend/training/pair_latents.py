"""Latents of a user's data, encoded once by frozen autoencoders."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
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
from ..data.pairs import Pairs, shuffled_rows
from ..modalities import modality
from ..pipeline import CoDi
from .encoding import stored_latents
from .identity import data_digest, weights_digest

MOST_CROPS = 4  # of an entry that lasts longer than the model
_CHUNK = 8


class PairLatents:
    """Scaled latents (unit variance, as the diffuser sees them) and captions of a user's data.

    Attributes
    ----------
    latents : dict of str to Tensor
        By modality, half precision. One row an entry, or several if it is longer than the model: see `crops`.
    captions : list of str
        One an entry.
    crops : list of int
        How many rows each entry has, one after the other: crops spread evenly over it, at most
        `MOST_CROPS`.
    """

    def __init__(self, latents: dict[str, Tensor], captions: Sequence[str], crops: Sequence[int] | None = None):
        self.latents, self.captions = latents, list(captions)
        self.crops = list(crops or [1] * len(self.captions))
        self._first = np.cumsum([0, *self.crops])

    @classmethod
    def load_or_encode(
        cls,
        folder: Path,
        codi: CoDi,
        pairs: Pairs,
        workers: int = 0,
        report: Callable[[str], None] = print,
        broken: Broken | None = None,
    ) -> PairLatents:
        """Encode the data, or read what an earlier call with the same data and autoencoders left in `folder`.

        Parameters
        ----------
        pairs : Pairs
            Asked for the streams to encode, and for texts if there are to be captions.
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
        streams = [name for name in pairs.modalities if name != "text"]
        path = folder / f"pairs_{'_'.join(streams)}.safetensors"
        mark = _mark(codi, pairs)
        if path.exists():
            with safe_open(path, "pt") as file:
                known = file.metadata()
            if known["mark"] == mark:
                for entry, reason in json.loads(known["left_out"]):
                    broken.add(entry, reason)
                broken.check(pairs.source)
                return cls(load_file(path), json.loads(known["captions"]), json.loads(known["crops"]))
            report(f"{path} belongs to other data or autoencoders: encoding again.")
        before = len(broken.faults)
        rows: dict[str, list[Tensor]] = {name: [] for name in streams}
        captions: list[str] = []
        crops: list[int] = []
        items = _items(pairs, workers, broken, captions, crops)
        while chunk := list(islice(items, _CHUNK)):
            for name in streams:
                rows[name].append(stored_latents(codi, name, torch.stack([item[name] for item in chunk])))
            if len(rows[streams[0]]) % 64 == 0:
                report(f"encoding {len(captions)}/{len(pairs)}")
        if more := sum(count > 1 for count in crops):
            report(
                f"{more} of the {len(crops)} entries last 1.5 times as long as the model or more: {sum(crops)} crops "
                f"are encoded, at most {MOST_CROPS} of each."
            )
        folder.mkdir(parents=True, exist_ok=True)
        latents = {name: torch.cat(tensors).contiguous() for name, tensors in rows.items()}
        facts = {"captions": captions, "crops": crops, "left_out": broken.faults[before:]}
        save_file(latents, path, {"mark": mark} | {name: json.dumps(value) for name, value in facts.items()})
        return cls(latents, captions, crops)

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
        """Latents and captions of one step, as `SceneLatents.batch`; a function of the arguments alone.

        Every entry comes once before any comes again, with any of its crops. Captions are empty with probability
        `empty`; `leave_out` has no effect, since the attributes of free captions are not known. `ValueError` for
        prompts other than texts.
        """
        if tuple(prompts) != ("text",):
            raise ValueError(f"The prompts of a user's data are their captions, not {', '.join(prompts)}.")
        rows = shuffled_rows(step, size, seed, len(self.captions))
        without_caption = np.random.default_rng((seed, step, 2)).random(size) < empty
        chosen = np.random.default_rng((seed, step, 6)).integers(np.array(self.crops)[rows])
        places = torch.from_numpy(self._first[rows] + chosen)
        batch: dict[str, Any] = {name: self.latents[name][places].float() for name in streams}
        batch["captions"] = ["" if no_caption else self.captions[row] for row, no_caption in zip(rows, without_caption)]
        batch["described"] = [self.captions[row] for row in rows]
        return batch


def _items(
    pairs: Pairs, workers: int, broken: Broken, captions: list[str], crops: list[int]
) -> Iterator[dict[str, Any]]:
    """Crops of all entries; captions and numbers of crops are appended to the lists, once an entry."""
    for items in read_all(pairs, workers, broken, functools.partial(_crops, pairs)):
        captions.append(items[0].get("text", ""))
        crops.append(len(items))
        yield from items


def _crops(pairs: Pairs, row: int) -> list[dict[str, Any]]:
    first = pairs.read(row)  # before its length is read, since this reports a faulty file
    return [first, *(pairs.read(row, position) for position in pairs.crops(row, MOST_CROPS)[1:])]


def _mark(codi: CoDi, pairs: Pairs) -> str:
    """A digest of the files, the sizes at which they are read, and the autoencoders' weights."""
    networks = sorted({modality(name).network for name in pairs.modalities} - {"text"})
    sizes = [getattr(codi.config, f"{network}_autoencoder") for network in networks]
    weights = weights_digest(codi.autoencoders[network] for network in networks)
    return hashlib.sha256(repr((data_digest(pairs), sizes, weights, MOST_CROPS)).encode()).hexdigest()
