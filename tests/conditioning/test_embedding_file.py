"""Prompt embeddings in files; more of what cannot be read is tested where users meet it, in tests/host."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from codi_backend.conditioning.embedding_file import SUFFIXES, as_embedding, read_embedding, write_embedding

VALUE = torch.linspace(-1, 1, 8)


def test_round_trip(tmp_path):
    embedding = torch.randn(3, 2, 8).transpose(0, 1)  # not contiguous
    write_embedding(tmp_path / "a.safetensors", embedding)
    assert torch.equal(read_embedding(tmp_path / "a.safetensors"), embedding)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_another_kind_of_file_names_those_that_can_be_read(tmp_path):
    with pytest.raises(ValueError, match=f"^a.txt is no file of embeddings: give one of {', '.join(SUFFIXES)}"):
        read_embedding(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="^There is no file of embeddings .*a.npy"):
        read_embedding(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.safetensors", "a.SFT", "a.pt", "a.PTH", "a.bin", "a.npy"])
@pytest.mark.parametrize("write", ["safetensors", "torch", "old", "numpy"])
def test_content_counts_and_not_the_ending(tmp_path, name, write):
    path = tmp_path / name
    if write == "safetensors":
        save_file({"any": VALUE}, path)
    elif write == "numpy":
        with open(path, "wb") as file:
            np.save(file, VALUE.numpy())
    else:
        torch.save(VALUE, path, _use_new_zipfile_serialization=write == "torch")
    assert torch.equal(read_embedding(path), VALUE[None, None])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_precisions(tmp_path, dtype):
    save_file({"embedding": VALUE.to(dtype)}, tmp_path / "a.safetensors")
    read = read_embedding(tmp_path / "a.safetensors")
    assert read.dtype == torch.float32 and torch.equal(read[0, 0], VALUE.to(dtype).float())


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8", "f2", "g"])
def test_arrays_of_other_machines(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.asfortranarray(VALUE.numpy().reshape(2, 4).astype(dtype)))
    assert torch.allclose(read_embedding(tmp_path / "a.npy"), VALUE.view(2, 1, 4), atol=1e-3)


INVERSIONS = {
    "emb_params": {"emb_params": torch.ones(2, 768)},
    "string_to_param": {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(2, 768)}, "name": "cat"},
    "clip_l": {"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)},
    "<cat-toy>": {"<cat-toy>": torch.ones(768)},
}


@pytest.mark.parametrize("key", INVERSIONS)
def test_textual_inversions_are_no_prompts(tmp_path, key):
    torch.save(INVERSIONS[key], tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match="^a.pt: this is a textual inversion .*: it is a word for CLIP's input, and no"
    ):
        read_embedding(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((8,), torch.nan), "not finite"),
        (torch.full((8,), 1e300, dtype=torch.float64), "not finite"),
        (torch.full((8,), 1e30), r"up to 1e\+30, where at most 10000 makes sense: make it again"),
        (torch.ones(8, dtype=torch.complex64), "complex64 is no embedding"),
        (torch.ones(8, dtype=torch.int64), r"int64 \[8\] is no embedding"),
        (torch.ones(8, dtype=torch.bool), r"bool \[8\] is no embedding"),
        (torch.ones(()), r"float32 \[\] is no embedding"),
        (torch.ones(0, 8), r"float32 \[0, 8\] is no embedding"),
        (torch.ones(1, 1, 1, 8), r"float32 \[1, 1, 1, 8\] is no embedding"),
    ],
)
def test_wrong_numbers(tmp_path, value, message):
    torch.save(value, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", value.numpy())
    save_file({"embedding": value}, tmp_path / "a.sft")
    for name in ("a.pt", "a.npy", "a.sft"):
        with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
            read_embedding(tmp_path / name)


@pytest.mark.parametrize("value", ["star", ["star"], [[1.0], [1.0, 2.0]], {"a": 1}, None, [10**400]])
def test_what_are_no_numbers(value):
    with pytest.raises(ValueError, match="is no embedding: "):
        as_embedding(value)


def test_lists_of_numbers():
    assert as_embedding([1, 2.5]).tolist() == [[[1.0, 2.5]]]


def test_headers_of_arrays_that_claim_too_much(tmp_path):
    np.save(tmp_path / "a.npy", VALUE.numpy())
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"(8,), }    ", b"(8" + b"0" * 4 + b",), }"))
    with pytest.raises(ValueError, match="^a.npy cannot be read .*: it is cut short or damaged; save it again"):
        read_embedding(tmp_path / "a.npy")


def test_embeddings_that_are_no_numbers_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="^The embedding for a.safetensors holds values that are not finite"):
        write_embedding(tmp_path / "a.safetensors", torch.full((1, 1, 8), torch.inf))
    assert not list(tmp_path.iterdir())
