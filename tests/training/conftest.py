"""Random latents and embeddings of a few scenes, and a model with all four modalities."""

import pytest
import tiny
import torch

from codi_backend.training.latents import SceneLatents

SHAPES = {"image": (12, 4, 8, 8), "audio": (12, 8, 8, 8), "video": (9, 4, 16, 8, 8), "text": (12, 16)}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    latents = {name: torch.randn(s, generator=generator).half() for name, s in SHAPES.items()}
    embeddings = {name: torch.randn(SHAPES[name][0], 32, generator=generator).half() for name in ("image", "audio")}
    return SceneLatents(latents, 1, embeddings)


@pytest.fixture
def codi():
    return tiny.build(tiny.FOUR)
