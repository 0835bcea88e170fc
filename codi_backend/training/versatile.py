"""Versatile Diffusion on Shapes & Chimes: the four flows, and contexts that are mixed, in turns (SPEC_VD section 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import State
from ..diffuser import Diffuser
from ..diffuser.slots import Slot
from ..prompts import TextEncoder
from .diffusers import DiffusionStage
from .versatile_scenes import VersatileScenes

_BOTH = ("text", "image")
# What is made of which contexts, one turn a step. Which of two contexts a picture shall follow takes longest to learn.
_TURNS = (
    ("image", ("text",)),
    ("image", _BOTH),
    ("text", ("text",)),
    ("image", ("image",)),
    ("text", ("image",)),
    ("image", _BOTH),
    ("text", _BOTH),
    ("image", _BOTH),
)
_TEXTS_PER_PICTURE = 2


class VersatileStage(DiffusionStage):
    """All of a diffuser whose networks share transformers learns, from contexts of all tokens."""

    name = "versatile"

    def __init__(self, diffuser: Diffuser, text_encoder: TextEncoder, data: VersatileScenes):
        super().__init__(diffuser, text_encoder, data, ("image", "text"))
        self._known: dict[str, Tensor] = {}

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        output, kinds = _TURNS[step % len(_TURNS)]
        return self.data.batch(step, size * (_TEXTS_PER_PICTURE if output == "text" else 1), seed, output, kinds)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noisy, noise, timesteps = self.noised(batch, generator)
        share, contexts = float(batch["share"][0]), []
        if "captions" in batch:
            contexts.append(("text", self.all_tokens(batch["captions"]), share))
        if "tokens" in batch:
            contexts.append(("image", batch["tokens"].to(self.alphas.device), 1 - share))
        predicted = self.diffuser(noisy, timesteps, contexts)
        (output,) = predicted
        error = self.error(predicted[output], noise[output], timesteps)
        return error, {f"{' + '.join(kind for kind, *_ in contexts)} to {output}": float(error.detach())}

    @torch.no_grad()
    def all_tokens(self, texts: list[str]) -> Tensor:
        """Text contexts ``[B, L, D]``. There are few different captions: each is encoded once."""
        if new := sorted(set(texts) - self._known.keys()):
            tokens = self.text_encoder.all_tokens(self.text_encoder.tokenize(new, fill=True).to(self.alphas.device))
            self._known.update(zip(new, tokens.half()))
        return torch.stack([self._known[text] for text in texts]).float()


def start_from(diffuser: Diffuser, image: Mapping[str, Tensor]) -> None:
    """Give a diffuser whose networks share transformers what a network of pictures with its own has learnt.

    Its data layers and time embedding go to the network of pictures, its transformers to the set of every kind: they
    have learnt to draw from one token, and the many of a context are of the same space.

    Parameters
    ----------
    image : mapping of str to Tensor
        State of a network of the same widths, with temporal blocks.
    """
    network = diffuser.networks["image"]
    # A residual block that a temporal one follows is the first of two.
    plain = {re.sub(r"\.0\.(in|emb|out|skip)_", r".\1_", key): value for key, value in image.items()}
    network.load_state_dict({key: plain[key] for key in network.state_dict()})
    diffuser.time_embed.load_state_dict(_below("time_embed.", image))
    slots = [f"{name}." for name, module in network.named_modules() if isinstance(module, Slot)]
    for layers in diffuser.context_sets.values():
        for transformer, slot in zip(layers, slots):
            transformer.load_state_dict(_below(slot, image))


def _below(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
