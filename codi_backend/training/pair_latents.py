"""Latents of a user's data, encoded once by frozen autoencoders and read by the later stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.checks import read_all
from ..data.entries import Content, Member
from ..data.pairs import Pairs, shuffled_rows
from ..modality import modality
from ..model import CoDi
from .encoding import stored_latents

_CHUNK = 8


class PairLatents:
    """Scaled latents (unit variance, as the diffuser sees them) and captions of a user's data.

    Attributes
    ----------
    latents : dict of str to Tensor
        By modality, half precision, one row an entry.
    captions : list of str
    """

    def __init__(self, latents: dict[str, Tensor], captions: Sequence[str]):
        self.latents, self.captions = latents, list(captions)

    @classmethod
    def load_or_encode(
        cls,
        folder: Path,
        codi: CoDi,
        pairs: Pairs,
        workers: int = 0,
        report: Callable[[str], None] = print,
    ) -> PairLatents:
        """Encode the data, or read what an earlier call with the same data and autoencoders left in `folder`.

        Parameters
        ----------
        pairs : Pairs
            Asked for texts, which are the captions, and for the streams to encode.
        workers : int
            Processes that read files.

        Raises
        ------
        ValueError
            With the first few contents that cannot be read.
        """
        streams = [name for name in pairs.modalities if name != "text"]
        path = folder / f"pairs_{'_'.join(streams)}.safetensors"
        mark = _mark(codi, pairs)
        if path.exists():
            with safe_open(path, "pt") as file:
                known = file.metadata()
            if known["mark"] == mark:
                return cls(load_file(path), json.loads(known["captions"]))
            report(f"{path} belongs to other data or autoencoders: encoding again.")
        rows: dict[str, list[Tensor]] = {name: [] for name in streams}
        captions: list[str] = []
        items = read_all(pairs, workers)
        while chunk := list(islice(items, _CHUNK)):
            for name in streams:
                rows[name].append(stored_latents(codi, name, torch.stack([item[name] for item in chunk])))
            captions += [item["text"] for item in chunk]
            if len(captions) % (64 * _CHUNK) == 0:
                report(f"encoding {len(captions)}/{len(pairs)}")
        folder.mkdir(parents=True, exist_ok=True)
        latents = {name: torch.cat(tensors).contiguous() for name, tensors in rows.items()}
        save_file(latents, path, {"mark": mark, "captions": json.dumps(captions)})
        return cls(latents, captions)

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

        Every entry comes once before any comes again. Captions are empty with probability `empty`; `leave_out` has no
        meaning, since nobody knows what attributes they name. `ValueError` for prompts other than texts.
        """
        if tuple(prompts) != ("text",):
            raise ValueError(f"A user's data are prompted with their captions only, not with {', '.join(prompts)}.")
        rows = shuffled_rows(step, size, seed, len(self.captions))
        unsaid = np.random.default_rng((seed, step, 2)).random(size) < empty
        batch: dict[str, Any] = {name: self.latents[name][rows].float() for name in streams}
        batch["captions"] = ["" if nothing else self.captions[row] for row, nothing in zip(rows, unsaid)]
        batch["described"] = [self.captions[row] for row in rows]
        return batch


def _mark(codi: CoDi, pairs: Pairs) -> str:
    """What the latents follow from: the files, the sizes they are read at, and the autoencoders' weights."""
    digest = hashlib.sha256()
    for entry in pairs.entries:
        digest.update(repr([(name, *_identity(entry.contents[name])) for name in pairs.modalities]).encode())
    for network in sorted({modality(name).network for name in pairs.modalities} - {"text"}):
        digest.update(repr(getattr(codi.config, f"{network}_autoencoder")).encode())
        for tensor in codi.autoencoders[network].state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _identity(content: Content) -> tuple[Any, ...]:
    if isinstance(content, str):
        return (content,)
    path = content.archive if isinstance(content, Member) else content
    facts = path.stat() if path.exists() else None
    return str(content), facts and facts.st_size, facts and facts.st_mtime_ns
