"""Prompt embeddings from and to files, and from other nodes."""

import numpy as np
import pytest
import torch
from host.comfy_host import ExecutionFailed
from safetensors.torch import save_file


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def inputs(host):
    """ComfyUI's input folder, empty again afterwards."""
    from pathlib import Path

    import folder_paths

    folder = Path(folder_paths.get_input_directory())
    yield folder
    for file in folder.glob("*.*"):
        file.unlink()


@pytest.fixture
def load(run_node):
    def call(file):
        ((embedding, more),) = run_node("CoDiLoadEmbedding", file=file)[0]
        assert more == {} and embedding.dtype == torch.float32
        return embedding

    return call


def test_what_is_saved_is_loaded(host, load, prompts):
    name = {"conditioning": ["text", 0], "filename_prefix": "codi_embeddings/mine/star"}
    prompt = {
        "model": {"class_type": "CoDiLoadModel", "inputs": {"checkpoint": "tiny.safetensors"}},
        "text": {
            "class_type": "CoDiPromptText",
            "inputs": {"prompt_encoders": ["model", 1], "text": "three red stars, slowly"},
        },
        "save": {"class_type": "CoDiSaveEmbedding", "inputs": name},
    }
    prompt["model"]["inputs"] |= {"image_and_video": False, "audio": True, "text": False}
    host.forget()
    (first,) = host.run(prompt)["save"]["embeddings"]
    host.forget()
    (second,) = host.run(prompt)["save"]["embeddings"]
    assert first == {"filename": "star_00001_.safetensors", "subfolder": "codi_embeddings/mine", "type": "output"}
    assert second["filename"] == "star_00002_.safetensors"
    choice = "codi_embeddings/mine/star_00001_.safetensors [output]"
    assert choice in host.module("nodes.prompts.embeddings").embedding_choices()
    assert torch.equal(load(choice), prompts[0][0][0])
    # As a prompt among others: the validator lets the choice through, and the next node takes it.
    assert host.run(
        {
            "load": {"class_type": "CoDiLoadEmbedding", "inputs": {"file": choice}},
            "save": {"class_type": "CoDiSaveEmbedding", "inputs": {**name, "conditioning": ["load", 0]}},
        }
    )["save"]["embeddings"]


def test_kinds_of_files_and_shapes(inputs, load):
    one, batch, tokens = numbers(64), numbers(3, 64), numbers(3, 2, 64)
    save_file({"anything": one}, inputs / "one.safetensors")
    save_file({"embedding": batch, "other": one}, inputs / "two.safetensors")
    np.save(inputs / "batch.npy", batch.double().numpy())
    torch.save(tokens.half(), inputs / "tokens.pt")
    torch.save({"embedding": batch.bfloat16()}, inputs / "dict.pt")
    assert torch.equal(load("one.safetensors"), one[None, None])
    assert torch.equal(load("two.safetensors"), batch[:, None])
    assert torch.equal(load("batch.npy"), batch[:, None])
    assert torch.equal(load("tokens.pt"), tokens.half().float())
    assert torch.equal(load("dict.pt"), batch.bfloat16().float()[:, None])


class _Code:
    def __reduce__(self):
        return print, ("this code ran",)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: np.save(f"{f}.npy", np.zeros((2, 2, 2, 2))), r"^file: bad.npy: float64 \[2, 2, 2, 2\] is no"),
        (lambda f: np.save(f"{f}.npy", np.zeros((0, 64))), r"^file: bad.npy: .* is no embedding"),
        (lambda f: np.save(f"{f}.npy", np.array(["star"])), "^file: bad.npy: .* a tensor of numbers is needed"),
        (
            lambda f: np.save(f"{f}.npy", np.array([{}]), allow_pickle=True),
            "^file: bad.npy holds Python objects and could run code, so it was not loaded",
        ),
        (lambda f: torch.save(torch.full((64,), torch.nan), f"{f}.pt"), "^file: bad.pt: .* not finite"),
        (lambda f: torch.save(torch.arange(64), f"{f}.pt"), r"^file: bad.pt: int64 \[64\] is no embedding"),
        (lambda f: torch.save({"a": numbers(4), "b": numbers(4)}, f"{f}.pt"), "^file: bad.pt: 2 tensors are in it"),
        (
            lambda f: torch.save(_Code(), f"{f}.pt"),
            "^file: bad.pt contains more than tensors .builtins.print.",
        ),
        (lambda f: f.with_suffix(".safetensors").write_text("star"), "^file: bad.safetensors is a text"),
        (lambda f: f.with_suffix(".pt").write_text("star"), "^file: bad.pt is a text"),
    ],
)
def test_files_that_hold_no_embedding(inputs, load, capsys, write, message):
    write(inputs / "bad")
    (file,) = inputs.glob("bad.*")
    with pytest.raises(ValueError, match=message):
        load(file.name)
    assert "this code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("file", ["nothing.npy", "../models/codi/tiny.safetensors", "/etc/hostname.npy"])
def test_files_that_are_not_there(load, file):
    with pytest.raises(ValueError, match="^file: there is no .* in ComfyUI's input folder"):
        load(file)


def test_the_loader_runs_again_when_the_file_changes(host, inputs):
    fingerprint = host.node("CoDiLoadEmbedding").fingerprint_inputs
    np.save(inputs / "one.npy", np.zeros(4))
    before = fingerprint(file="one.npy")
    assert fingerprint(file="one.npy") == before
    np.save(inputs / "one.npy", np.zeros(8))
    assert fingerprint(file="one.npy") != before


@pytest.mark.parametrize("prefix", ["../escaped", "/tmp/escaped", " "])
def test_nothing_is_saved_outside_the_output_folder(run_node, prompts, prefix):
    with pytest.raises(ValueError, match="^filename_prefix: .* names no file within the output folder"):
        run_node("CoDiSaveEmbedding", conditioning=prompts[0], filename_prefix=prefix)


def test_the_model_checks_the_width(inputs, host):
    np.save(inputs / "narrow.npy", np.ones(32))
    graph = {
        "model": {"class_type": "CoDiLoadModel", "inputs": {"checkpoint": "tiny.safetensors"}},
        "load": {"class_type": "CoDiLoadEmbedding", "inputs": {"file": "narrow.npy"}},
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                **{
                    "model": ["model", 0],
                    "positive": ["load", 0],
                    "negative": ["load", 0],
                    "latent_image": ["latent", 0],
                },
                **{"seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["model", 2]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}},
    }
    graph["model"]["inputs"] |= {"image_and_video": True, "audio": False, "text": False}
    with pytest.raises(ExecutionFailed, match="takes prompts of width 64 but got an embedding of width 32"):
        host.run(graph)


def test_numbers_of_other_nodes(run_node):
    class ClipVisionOutput:
        image_embeds = numbers(2, 64)

    def made(tensor, normalize=False):
        ((embedding, more),) = run_node("CoDiEmbeddingFromTensor", tensor=tensor, normalize=normalize)[0]
        assert more == {}
        return embedding

    assert torch.equal(made(ClipVisionOutput()), ClipVisionOutput.image_embeds[:, None])
    assert torch.equal(made([1, 2.5, 3]), torch.tensor([[[1, 2.5, 3]]]))
    assert torch.equal(made(np.ones((2, 8))), torch.ones(2, 1, 8))
    given = numbers(3, 64)
    normal = made(given, normalize=True)
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones(3, 1))
    torch.testing.assert_close(normal[:, 0] * given.norm(dim=-1, keepdim=True), given)
    assert torch.equal(given, numbers(3, 64))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("red", "^tensor: A str is no embedding"),
        (None, "^tensor: .* no embedding"),
        (torch.zeros(2, 8), "^tensor: an embedding of zeros has no direction"),
        (torch.full((8,), torch.inf), "^tensor: The embedding holds values that are not finite"),
        (torch.zeros(1, 4, 8, 8), r"^tensor: float32 \[1, 4, 8, 8\] is no embedding"),
    ],
)
def test_what_is_no_embedding(run_node, tensor, message):
    with pytest.raises(ValueError, match=message):
        run_node("CoDiEmbeddingFromTensor", tensor=tensor, normalize=True)
