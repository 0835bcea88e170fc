"""Prompt embeddings in files. What cannot be read is tested where users meet it, in tests/host."""

import pytest
import torch

from codi_backend.embedding_files import SUFFIXES, read_embedding, write_embedding


def test_round_trip(tmp_path):
    embedding = torch.randn(3, 2, 8).transpose(0, 1)  # not contiguous
    write_embedding(tmp_path / "a.safetensors", embedding)
    assert torch.equal(read_embedding(tmp_path / "a.safetensors"), embedding)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_another_kind_of_file_names_those_that_can_be_read(tmp_path):
    with pytest.raises(ValueError, match=f"^a.txt is no file of embeddings: give one of {', '.join(SUFFIXES)}"):
        read_embedding(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="^a.npy cannot be read"):
        read_embedding(tmp_path / "a.npy")
