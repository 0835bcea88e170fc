"""An identity VAE, for tests of the code around the VAE."""

from types import SimpleNamespace

import pytest
from torch import nn


class _Echo(nn.Module):
    def encode(self, x):
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: x))

    def decode(self, z):
        return SimpleNamespace(sample=z)


@pytest.fixture
def echo():
    return _Echo()
