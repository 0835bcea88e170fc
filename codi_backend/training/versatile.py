"""Versatile Diffusion on Shapes & Chimes: the four flows, and mixed contexts, in turns (docs/spec.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.native import State
from ..models.diffuser import Diffuser
from ..models.diffuser.shared_attention import SharedCrossAttention
from ..models.encoders import TextEncoder
from .diffusers import DiffusionStage
from .versatile_scenes import VersatileScenes

_BOTH = ("text", "image")
# Output and contexts, one turn a step. Images from two contexts take longest to learn.
TURNS = {
    "flows": (
        ("image", ("text",)),
        ("text", ("text",)),
        ("image", ("image",)),
        ("text", ("image",)),
        ("image", _BOTH),
        ("text", ("text",)),
        ("text", ("image",)),
        ("text", _BOTH),
    ),
    "dual_guidance": (
        ("image", ("text",)),
        ("image", _BOTH),
        ("text", ("text",)),
        ("image", ("image",)),
        ("text", ("image",)),
        ("image", _BOTH),
        ("text", _BOTH),
        ("image", _BOTH),
    ),
}
_TEXTS_PER_IMAGE = 2


class VersatileStage(DiffusionStage):
    """Trains all of a diffuser whose networks share transformers, on contexts of all tokens.

    Parameters
    ----------
    turns : sequence of (str, sequence of str)
        Output and contexts, one a step; by default those of dual guidance.
    """

    name = "versatile"

    def __init__(
        self,
        diffuser: Diffuser,
        text_encoder: TextEncoder,
        data: VersatileScenes,
        turns: Sequence[tuple[str, tuple[str, ...]]] = TURNS["dual_guidance"],
    ):
        super().__init__(diffuser, text_encoder, data, ("image", "text"))
        self.turns = tuple(turns)
        self._known: dict[str, Tensor] = {}

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        output, kinds = self.turns[step % len(self.turns)]
        return self.data.batch(step, size * (_TEXTS_PER_IMAGE if output == "text" else 1), seed, output, kinds)

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
        """Text contexts ``[B, L, D]``. Each of the few different captions is encoded once."""
        if new := sorted(set(texts) - self._known.keys()):
            tokens = self.text_encoder.all_tokens(self.text_encoder.tokenize(new, fill=True).to(self.alphas.device))
            self._known.update(zip(new, tokens.half()))
        return torch.stack([self._known[text] for text in texts]).float()


def start_from(diffuser: Diffuser, image: Mapping[str, Tensor]) -> None:
    """Initialise a diffuser whose networks share transformers from an image network that has its own.

    Its data layers and time embedding go to the image network, its transformers to the set of every kind: they were
    trained on one token, and the tokens of a context are of the same space.

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
    prefixes = [f"{name}." for name, module in network.named_modules() if isinstance(module, SharedCrossAttention)]
    for layers in diffuser.context_sets.values():
        for transformer, prefix in zip(layers, prefixes):
            transformer.load_state_dict(_below(prefix, image))


def _below(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
