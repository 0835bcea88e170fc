"""The tiny model, in memory and as a file."""

import pytest


@pytest.fixture(scope="session")
def codi():
    """A tiny model with random weights. Tests that change it build their own."""
    from tiny import build

    return build()


@pytest.fixture(scope="session")
def checkpoint(codi, tmp_path_factory):
    """The tiny model as one file."""
    from tiny import save

    return save(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", codi)
