"""Latents and prompt embeddings of Shapes & Chimes, encoded once for all later stages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import ShapesAndChimes, sample_scene
from ..data.captions import caption, described_attributes, partial_caption
from ..data.images import visible_objects
from ..data.world import retimed
from ..pipeline import CoDi
from .encoding import stored_latents

_CHUNK = 64
# Latents per scene. With fewer images their network memorises layouts; texts come as often, to be paired with them.
TIMES = {"image": 8.0, "text": 8.0}


class SceneLatents:
    """Scaled latents (unit variance, as the diffuser sees them) and prompt embeddings of a fixed list of scenes.

    Attributes
    ----------
    latents : dict of str to Tensor
        By modality, half precision, one row a scene. Texts are full captions.
    embeddings : dict of str to Tensor
        ``[N, D]`` by prompt modality, half precision, for prompts other than texts.
    """

    def __init__(self, latents: dict[str, Tensor], seed: int, embeddings: Mapping[str, Tensor] | None = None):
        self.latents, self.seed, self.embeddings = latents, seed, dict(embeddings or {})

    @classmethod
    def load_or_encode(
        cls,
        folder: Path,
        codi: CoDi,
        streams: Sequence[str],
        prompts: Sequence[str] = (),
        count: int = 16_000,
        seed: int = 1,
        report: Callable[[str], None] = print,
        workers: int = 0,
    ) -> SceneLatents:
        """Read ``folder/latents_<modality>`` and ``embeddings_<modality>``, or encode scenes and write them there.

        `workers` processes draw the scenes.
        """

        def stored(kind: str, name: str, encode: Callable[[str, Any], Tensor]) -> Tensor:
            path = folder / f"{kind}_{name}.safetensors"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                times = TIMES.get(name, 1.0) if kind == "latents" else min(TIMES.get(name, 1.0), 1.0)
                save_file({name: _encode(name, encode, int(times * count), seed, report, workers)}, path)
            return load_file(path)[name]

        def embedding(name: str, items: Any) -> Tensor:
            rate = codi.config.audio_autoencoder.mel.sample_rate if name == "audio" else None
            return codi.prompt(name, items, rate).embedding[:, 0].half().cpu()

        return cls(
            {name: stored("latents", name, functools.partial(stored_latents, codi)) for name in streams},
            seed,
            {name: stored("embeddings", name, embedding) for name in prompts if name != "text"},
        )

    def batch(
        self,
        step: int,
        size: int,
        seed: int,
        streams: Sequence[str],
        prompts: Sequence[str] = ("text",),
        leave_out: float = 0.25,
        empty: float = 0.1,
    ) -> dict[str, Any]:
        """Latents of `size` random scenes and their prompts; a function of the arguments alone.

        Parameters
        ----------
        prompts : sequence of str
            Prompt modalities, of which each scene draws one of those that it has.
        leave_out, empty : float
            Probability with which a caption leaves each attribute out, and with which a prompt is the empty text
            altogether (classifier-free dropout).

        Videos alone, with text prompts, are cut to another start and tempo, which gives more videos from the stored
        frames.

        Returns
        -------
        dict
            Latents by stream; ``captions``: list of str; ``described``: list of str, the same scenes in full;
            ``embedding``: ``[size, D]`` of the prompts that are not texts, zero elsewhere, and ``is_text``: ``[size]``
            bool.
        """
        rng = np.random.default_rng((seed, step, 2))
        rows = rng.integers(0, min(len(self.latents[name]) for name in streams), size)
        index = torch.from_numpy(rows)
        batch: dict[str, Any] = {name: self.latents[name][index].float() for name in streams}
        batch["captions"], batch["described"], chosen = [], [], []
        free_in_time = tuple(streams) == ("video",) and tuple(prompts) == ("text",)
        for place, row in enumerate(rows):
            is_empty = rng.random() < empty
            available = [name for name in prompts if name == "text" or row < len(self.embeddings[name])]
            chosen.append("text" if is_empty else available[int(rng.integers(len(available)))])
            scene = sample_scene(self.seed, int(row))
            if free_in_time:
                scene, was = retimed(scene, rng), visible_objects(scene)
                batch["video"][place] = batch["video"][place][:, [was.index(n) for n in visible_objects(scene)]]
            batch["described"].append(caption(scene, described_attributes(scene, "video")))
            batch["captions"].append("" if is_empty else partial_caption(scene, rng, leave_out))
        batch["is_text"] = torch.tensor([name == "text" for name in chosen])
        if self.embeddings:
            width = next(iter(self.embeddings.values())).shape[1]
            batch["embedding"] = torch.stack(
                [
                    torch.zeros(width) if name == "text" else self.embeddings[name][row].float()
                    for name, row in zip(chosen, rows)
                ]
            )
        return batch


@torch.inference_mode()
def _encode(
    name: str,
    encode: Callable[[str, Any], Tensor],
    count: int,
    seed: int,
    report: Callable[[str], None],
    workers: int,
) -> Tensor:
    data = ShapesAndChimes(count, (name,), seed=seed, leave_out=0.0)
    rows = []
    chunks = DataLoader(
        data,
        _CHUNK,
        collate_fn=data.collate,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,  # see `read_all`
        generator=torch.Generator(),  # leaves the common one alone
    )
    for number, chunk in enumerate(chunks):
        rows.append(encode(name, chunk[name]))
        if number % 32 == 0:
            report(f"encoding {name}: {number * _CHUNK}/{count}")
    return torch.cat(rows).contiguous()
