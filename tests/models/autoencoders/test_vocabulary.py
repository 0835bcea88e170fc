"""Search for the vocabulary files of a loaded model's text autoencoder."""

import dataclasses
import json

import pytest
import tiny
import torch

from codi_backend.config import CoDiConfig, TextAutoencoderConfig, TransformerConfig
from codi_backend.pipeline import CoDi

SIZES = {"positions": 32, "width": 8, "hidden": 8, "layers": 1, "heads": 2}
CONFIG = CoDiConfig(
    text_autoencoder=TextAutoencoderConfig(
        latent_dim=8, encoder=TransformerConfig(6, **SIZES), decoder=TransformerConfig(4, **SIZES)
    )
)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "model").mkdir()
    torch.manual_seed(0)
    return tiny.save(tmp_path / "model" / "text.safetensors", CoDi(CONFIG))


def write_vocabularies(folder, first, second, files=("vocab.txt", "vocab.json")):
    """`first` and `second` are the two words."""
    folder.mkdir(exist_ok=True)
    if "vocab.txt" in files:
        (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", first, second]))
    if "vocab.json" in files:
        (folder / "vocab.json").write_text(json.dumps({f"Ġ{first}": 0}))
    return folder


def ids(codi, text):
    return codi.autoencoders["text"].vocabulary.tokenize([text]).tolist()


def test_a_folder_that_is_named(tmp_path, file):
    write_vocabularies(file.parent, "red", "blue")
    folder = write_vocabularies(tmp_path / "other", "blue", "red")
    codi = CoDi.load(file, vocabulary=folder)
    assert ids(codi, "red blue") == [[2, 5, 4, 3]]
    assert codi.encode("text", ["red"]).shape == (1, 8)
    assert {*" ".join(codi.decode("text", torch.zeros(1, 8))).split()} <= {"blue", "<PAD>", "<BOS>"}


def test_the_folder_of_the_checkpoint(file):
    write_vocabularies(file.parent, "red", "blue")
    assert ids(CoDi.load(file), "red blue") == [[2, 4, 5, 3]]


def test_the_folder_of_any_file(tmp_path):
    codi = CoDi(dataclasses.replace(CONFIG, text_encoder=tiny.CONFIG.text_encoder))
    files = []
    for i, part in enumerate(codi.parts()):
        (tmp_path / str(i)).mkdir()
        files.append(tiny.save(tmp_path / str(i) / "part.safetensors", codi, [part]))
    write_vocabularies(files[1].parent, "red", "blue")
    assert ids(CoDi.load(iter(files)), "red blue") == [[2, 4, 5, 3]]


@pytest.mark.parametrize("files", [(), ("vocab.txt",), ("vocab.json",)])
def test_both_files_are_needed(file, files):
    write_vocabularies(file.parent, "red", "blue", files)
    codi = CoDi.load(file)
    with pytest.raises(FileNotFoundError, match="name the folder .* as `vocabulary` when you load the model"):
        codi.encode("text", ["red"])


def test_a_wrong_folder_fails_on_loading(tmp_path, file):
    with pytest.raises(FileNotFoundError, match="put the vocabulary file vocab.txt"):
        CoDi.load(file, vocabulary=tmp_path)
