"""No reader runs the code in a file."""

import contextlib
import json
import pickle

import pytest
import tiny
import torch
from pickle_corpus import assembled, corpus, payloads
from safetensors.torch import load_file, save_file

from codi_backend.checkpoints.convert import convert
from codi_backend.checkpoints.inspect import inspect
from codi_backend.checkpoints.native import read_parts
from codi_backend.checkpoints.tensor_file import TensorFile
from codi_backend.conditioning.embedding_file import read_embedding
from codi_backend.pipeline import CoDi
from codi_backend.training.loop import Options
from codi_backend.training.state import State

SENTENCE = r"^(.+/)?bad\.\w+ .*(could run code, so it was not loaded: get it as safetensors|: .+)\.$"


def inspected(path):
    [file] = inspect(path).files
    raise ValueError(file.problem)


def resumed(path):
    State(path, {"weight": torch.zeros(2)}, {}).load(Options(1, 1, 1.0), {})


READERS = {
    "file": TensorFile,
    "load": CoDi.load,
    "inspect": inspected,
    "convert": lambda path: list(convert(path, path.parent / "out")),
    "embedding": read_embedding,
    "state": resumed,
}
SUFFIXES = (".pt", ".safetensors")
NAMES = sorted(corpus("/nowhere"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder with a folder for each file of the corpus; what would run leaves a marker in it."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, content in corpus(folder / "marker").items():
        (folder / name).mkdir()
        for suffix in SUFFIXES:
            (folder / name / f"bad{suffix}").write_bytes(content)
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reader", READERS)
def test_no_code_runs(bad, name, reader):
    for suffix in SUFFIXES:
        path = bad / name / f"bad{suffix}"
        if name == "after the end":  # the tensors before the code are sound
            with contextlib.suppress(ValueError):
                READERS[reader](path)
        else:
            with pytest.raises(ValueError, match=SENTENCE) as caught:
                READERS[reader](path)
            assert "\n" not in str(caught.value)
            if name.startswith(("zip ", "old ", "bare ", "protocol")):
                assert "contains more than tensors (" in str(caught.value)
        assert not (bad / "marker").exists() and not (bad / name / "out").exists()


def test_the_corpus_would_run_code(tmp_path):
    """Else the tests above could not fail."""
    marker, ran = tmp_path / "marker", set()
    for name, data in {**{n: pickle.dumps(p) for n, p in payloads(marker).items()}, **assembled(marker)}.items():
        try:
            result = pickle.loads(data)
            if hasattr(result, "wait"):
                result.wait()
            if hasattr(result, "close"):
                result.close()
        except Exception:
            pass
        if marker.exists():
            ran.add(name)
            marker.unlink()
    assert len(ran) >= 15 and {"os.system", "eval", "stack global", "inst", "global", "obj"} <= ran


@pytest.mark.parametrize("content", [[1], {"options": {}}, torch.zeros(2)])
def test_a_state_of_another_kind(tmp_path, content):
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="bad.pt is not the state of a training run: remove it to start afresh"):
        resumed(tmp_path / "bad.pt")


def test_training_records_are_json(tmp_path, codi):
    tensors = load_file(tiny.save(tmp_path / "a.safetensors", codi, ["prompt_encoders.text"]))
    for text in ("{", "3", "[3]", "[" * 100_000, json.dumps({"stage": "a"})):
        metadata = {"codi_config": codi.config.to_json(), "codi_training": text}
        save_file(tensors, tmp_path / "a.safetensors", metadata)
        message = "^a.safetensors: its training record .codi_training. is not a list of JSON"
        with pytest.raises(ValueError, match=message):
            read_parts(tmp_path / "a.safetensors")
