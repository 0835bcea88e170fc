"""An oracle with contexts for Shapes & Chimes: tokens are votes for attributes."""

import dataclasses

import numpy as np
import torch
from torch import nn

from codi_backend.conditioning.context import Context, MixedContext
from codi_backend.config import CoDiConfig, DiffuserConfig, ImageAutoencoderConfig
from codi_backend.data import sample_scene
from codi_backend.data.captions import caption
from codi_backend.data.world import COLOURS, COUNTS, SHAPES
from codi_backend.evaluation import judge_image, judge_text
from codi_backend.evaluation.prompts import render

VALUES = {"colour": tuple(COLOURS), "shape": SHAPES, "count": COUNTS}
SIZES = [len(values) for values in VALUES.values()]
PATCHES = 10  # as many components as the editing tool keeps


class VersatileOracle(nn.Module):
    """Focus removes its attributes, a text outweighs an image, and a start image stays from fidelity 0.5 on."""

    config = CoDiConfig(
        name="oracle",
        diffuser=DiffuserConfig(contexts=("text", "image")),
        image_autoencoder=ImageAutoencoderConfig(),
    )
    outputs = ("text", "image")
    prompt_encoders = ("text", "image")
    text_strength = 2.0

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def context(self, kind, content, focus=0.5):
        votes = torch.stack([self._votes((judge_text if kind == "text" else judge_image)(one)) for one in content])
        colour, others = votes[:, : SIZES[0]], votes[:, SIZES[0] :]
        votes = torch.cat([colour * (focus >= 0.5), others * (focus <= 0.5)], 1)
        if kind == "text":
            return Context(kind, self.text_strength * votes[:, None], torch.zeros_like(votes[:, None]))
        patches = 1e-3 * torch.rand(len(votes), PATCHES, votes.shape[1])
        tokens = torch.cat([votes[:, None], patches], 1)
        return Context(kind, tokens, torch.zeros_like(tokens))

    @staticmethod
    def _votes(judged):
        return torch.tensor([float(getattr(judged, a) == v) for a, values in VALUES.items() for v in values])

    def encode(self, name, content):
        return torch.stack([self._votes(judge_text(one)) for one in content])

    def decode(self, name, latents):
        return [caption(self._scene(votes, np.random.default_rng(0))) for votes in latents]

    def generate_latents(self, context, outputs, seed):
        return {"text": context.tokens.sum(1)}

    def generate(
        self, contexts, outputs, *, steps, sampler, guidance, seed, alignment, candidates, start=None, fidelity=0.0
    ):
        if isinstance(contexts, Context):
            contexts = MixedContext((contexts,), (1.0,))
        votes = sum(ratio * context.tokens.sum(1) for context, ratio in zip(contexts.contexts, contexts.ratios))
        if fidelity >= 0.5:
            return {"image": start}
        scenes = [self._scene(row, np.random.default_rng((seed, i))) for i, row in enumerate(votes)]
        made = {"text": [caption(scene, tuple(VALUES)) for scene in scenes], "image": render("image", scenes)}
        return {name: made[name] for name in outputs}

    @staticmethod
    def _scene(votes, rng):
        """The values with most votes; ties are broken at random."""
        chosen = {
            name: values[int((part.round(decimals=2) + 1e-6 * torch.from_numpy(rng.random(len(part)))).argmax())]
            for (name, values), part in zip(VALUES.items(), votes.split(SIZES))
        }
        drawn = (sample_scene(int(rng.integers(1000)), i, "all") for i in range(1000))
        places = next(scene.places for scene in drawn if scene.count == chosen["count"])
        return dataclasses.replace(sample_scene(0, 0), **chosen, places=places)


class TextUnconditional(VersatileOracle):
    """A model that ignores a text beside an image."""

    text_strength = 0.1
