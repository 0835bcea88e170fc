"""Random latents of a few scenes."""

import pytest
import torch

from codi_backend.training.latents import SceneLatents


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    shapes = {"image": (12, 4, 8, 8), "audio": (12, 8, 8, 8)}
    return SceneLatents({name: torch.randn(s, generator=generator).half() for name, s in shapes.items()}, seed=1)
