"""Similarity of prompts and outputs: cosines of their embeddings by the prompt encoders of their modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..checks.numbers import require_whole
from ..conditioning.prompt import Prompt, interpolate
from ..media.contents import read_prompt
from ..pipeline import CoDi
from ..sampling.noise import MAX_RESULTS
from .prompts import prompt_modalities


@dataclass(frozen=True)
class Similarity:
    """A symmetric matrix of cosines in -1..1, averaged over the batch; `labels` name rows and columns."""

    labels: tuple[str, ...]
    cosines: tuple[tuple[float, ...], ...]

    def __str__(self) -> str:
        width = max(len(label) for label in self.labels)
        columns = max(width, 6)
        lines = [" " * width + "".join(f"  {label:>{columns}}" for label in self.labels)]
        for label, row in zip(self.labels, self.cosines):
            lines.append(f"{label:<{width}}" + "".join(f"  {value:>{columns}.3f}" for value in row))
        return "\n".join(lines)


def similarity(codi: CoDi, contents: Mapping[str, tuple[str, Any]]) -> Similarity:
    """Compare contents of any modalities in the embedding space of prompts.

    Parameters
    ----------
    contents : mapping of str to (str, content)
        Modality and content by label. Contents are as `CoDi.generate` returns them: a list of texts, pixels
        ``[B, 3, H, W]`` or ``[B, 3, T, H, W]`` in 0..1, or ``{"waveform": [B, 1, N], "sample_rate": int}``; of one
        batch size, or of 1.

    Raises
    ------
    ValueError
        Without contents, if the model lacks a prompt encoder, or if batch sizes differ.
    """
    return compare({label: _prompt(codi, name, content).embedding for label, (name, content) in contents.items()})


def compare(embeddings: Mapping[str, Tensor]) -> Similarity:
    """Cosines between prompt embeddings ``[B, 1, D]``, by label; of one batch size, or of 1.

    `ValueError` without embeddings, or if batch sizes differ.
    """
    if not embeddings:
        raise ValueError("There are no contents to compare: give at least one.")
    sizes = {len(embedding) for embedding in embeddings.values()}
    if len(sizes - {1}) > 1:
        raise ValueError(f"The contents have batch sizes {sorted(sizes)}: make them equal, or 1.")
    directions = [normalize(embedding[:, 0].float(), dim=-1) for embedding in embeddings.values()]
    rows = torch.stack([direction.expand(max(sizes), -1) for direction in directions])  # [labels, B, D]
    cosines = torch.einsum("ibd,jbd->ij", rows, rows) / max(sizes)
    return Similarity(tuple(embeddings), tuple(tuple(row) for row in cosines.tolist()))


def compare_alignments(
    codi: CoDi, prompts: Sequence[tuple[str, Any, float]], outputs: Sequence[str], count: int = 1, **settings: Any
) -> dict[str, Similarity]:
    """Generate jointly and independently from the same noise, and compare prompts and outputs with each other.

    Parameters
    ----------
    prompts : sequence of (str, content, float)
        Modality, content of batch size 1 as `similarity` takes it, and weight.
    outputs : sequence of str
        Modalities to generate.
    count : int
        Number of results that the cosines are averaged over.
    settings
        Further arguments of `CoDi.generate`, such as `seed`.

    Returns
    -------
    dict of str to Similarity
        "joint" (alignment "paper") and "independent" (alignment "none"). An output is included if the model has a
        prompt encoder of its modality.

    Raises
    ------
    ValueError
        As `similarity` and `CoDi.generate` do.
    """
    count = require_whole(count, "count", 1, MAX_RESULTS)
    mixed = interpolate([(_prompt(codi, name, content), weight) for name, content, weight in prompts])
    mixed = Prompt(mixed.embedding.expand(count, -1, -1), mixed.unconditional.expand(count, -1, -1))
    given = {f"prompt {i} ({name})": (name, content) for i, (name, content, _) in enumerate(prompts, start=1)}
    encodable = prompt_modalities(codi)
    matrices = {}
    for label, alignment in (("joint", "paper"), ("independent", "none")):
        made = codi.generate(mixed, outputs, alignment=alignment, candidates=1, **settings)
        matrices[label] = similarity(codi, given | {name: (name, made[name]) for name in made if name in encodable})
    return matrices


def read_content(codi: CoDi, name: str, value: str) -> Any:
    """A text, or the content of a file of another modality, as `similarity` takes it."""
    content = read_prompt(name, value, codi.config).value
    if name == "text":
        return [content]
    return {"waveform": content[0], "sample_rate": content[1]} if name == "audio" else content


def _prompt(codi: CoDi, name: str, content: Any) -> Prompt:
    if name == "audio":
        return codi.prompt(name, content["waveform"], content["sample_rate"])
    return codi.prompt(name, content)
