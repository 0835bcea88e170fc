"""Checkpoints and embeddings that are damaged, hostile or no numbers: the messages of the loader nodes."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from host.tiny_checkpoint import save_tiny
from pickle_corpus import corpus
from safetensors.torch import load_file, save_file

NAMES = sorted(corpus("/nowhere"))


@pytest.fixture(scope="module")
def inputs():
    import folder_paths

    return Path(folder_paths.get_input_directory())


@pytest.fixture
def spoiled(host):
    """Write the tiny checkpoint with a value of some tensor changed; the file is removed afterwards."""
    import safetensors

    path = host.models / "spoiled.safetensors"

    def write(key, value):
        save_tiny(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(path)
        tensors[key].view(-1)[0] = value
        save_file(tensors, path, metadata)
        host.forget()
        return path.name

    yield write
    path.unlink()


@pytest.mark.parametrize("name", NAMES)
def test_no_node_runs_code(host, run_node, inputs, tmp_path, name):
    marker = tmp_path / "marker"
    checkpoint, embedding = host.models / "hostile.pth", inputs / "hostile.pt"
    for path in (checkpoint, embedding):
        path.write_bytes(corpus(marker)[name])
    host.forget()
    try:
        with pytest.raises(ValueError, match=r"^checkpoint: hostile.pth .+\.$"):
            run_node("CoDiLoadModel", checkpoint="hostile.pth")
        harmless = name == "after the end"  # the tensor before the code
        with contextlib.nullcontext() if harmless else pytest.raises(ValueError, match=r"^file: hostile.pt\b.+\.$"):
            run_node("CoDiLoadEmbedding", file="hostile.pt")
    finally:
        checkpoint.unlink()
        embedding.unlink()
    assert not marker.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(run_node, spoiled, value):
    name = spoiled("diffuser.audio.time_embed.0.bias", value)
    message = "^checkpoint: diffuser.audio of spoiled.safetensors holds values that are not finite .* time_embed.0.bias"
    with pytest.raises(ValueError, match=message):
        run_node("CoDiLoadModel", checkpoint=name)
    model, *_ = run_node("CoDiLoadModel", checkpoint=name, audio=False)
    assert model is not None


def test_weights_of_other_parts_are_checked_when_they_are_used(run_node, spoiled):
    name = spoiled("prompt_encoders.text.text_projection.weight", float("nan"))
    _, encoders, *_ = run_node("CoDiLoadModel", checkpoint=name)
    with pytest.raises(
        ValueError, match="prompt_encoders.text of spoiled.safetensors holds values that are not finite"
    ):
        run_node("CoDiPromptText", prompt_encoders=encoders, text="a star")


def test_an_incomplete_network(host, run_node, spoiled):
    name = spoiled("diffuser.audio.time_embed.0.bias", 0.0)
    path = host.models / name
    tensors = load_file(path)
    del tensors["diffuser.audio.time_embed.0.bias"]
    config = host.module("codi_backend.checkpoints.native").read_parts(path).config
    save_file(tensors, path, {"codi_config": config.to_json()})
    host.forget()
    with pytest.raises(
        ValueError, match="^checkpoint: spoiled.safetensors lacks 1 of the .* of diffuser.audio, such as"
    ):
        run_node("CoDiLoadModel", checkpoint=name)


def test_a_part_in_two_files_of_a_folder(host, run_node):
    folder = host.models / "twice"
    folder.mkdir()
    save_tiny(folder / "new.safetensors")
    save_tiny(folder / "old.SFT")
    host.forget()
    assert {"twice/", "twice/old.SFT"} <= set(host.module("nodes.runtime.files").model_choices())
    with pytest.raises(
        ValueError, match="^checkpoint: new.safetensors and old.SFT both hold .*: load only one of them"
    ):
        run_node("CoDiLoadModel", checkpoint="twice/")


def test_embeddings_with_endings_in_any_case(host, run_node, inputs):
    value = torch.arange(64.0)
    save_file({"embedding": value}, inputs / "a.SFT")
    np.save(inputs / "b.npy", value.numpy())
    (inputs / "b.npy").rename(inputs / "b.NPY")
    try:
        assert {"a.SFT", "b.NPY"} <= set(host.module("nodes.prompts.embeddings").embedding_choices())
        for name in ("a.SFT", "b.NPY"):
            ((embedding, _),) = run_node("CoDiLoadEmbedding", file=name)[0]
            assert torch.equal(embedding, value[None, None])
    finally:
        (inputs / "a.SFT").unlink()
        (inputs / "b.NPY").unlink()
