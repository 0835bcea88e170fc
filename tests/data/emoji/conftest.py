"""Miniature packages, and the programs that fetch them, on the path."""

import emoji_packages
import pytest


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A folder with the packages, from which the programs on the path fetch."""
    from codi_backend.data.emoji import packages

    folder, programs = tmp_path_factory.mktemp("registry"), tmp_path_factory.mktemp("programs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "PACKAGES", emoji_packages.pinned(emoji_packages.write_packages(folder)))
        emoji_packages.write_clients(programs, folder)
        patch.setenv("PATH", str(programs))
        yield folder
