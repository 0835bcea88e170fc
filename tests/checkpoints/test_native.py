"""Checkpoint files, good and bad."""

import dataclasses
import json

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from codi_backend.checkpoints import native as checkpoints
from codi_backend.checkpoints.native import read_parts, save_parts
from codi_backend.pipeline import CoDi
from codi_backend.presets import mini

PARTS = ("autoencoders.audio", "autoencoders.image", "diffuser.audio", "diffuser.image", "prompt_encoders.text")


@pytest.fixture
def weights(codi):
    return tiny.states(codi)


def equal(a, b):
    return a.keys() == b.keys() and all(not tiny.changed(a[name], b[name]) for name in a)


def split(folder, codi):
    """The model as one file a part."""
    return [tiny.save(folder / f"{part}.safetensors", codi, [part]) for part in PARTS]


def test_round_trip(checkpoint, weights):
    read = read_parts(checkpoint)
    assert read.config == tiny.CONFIG
    assert sorted(read.parts) == list(PARTS)
    assert equal(read.parts, weights)


def test_half_precision(tmp_path, codi, weights):
    path = tiny.save(tmp_path / "half.safetensors", codi, dtype=torch.float16)
    assert all(t.dtype == torch.float16 for part in read_parts(path).parts.values() for t in part.values())
    loaded = CoDi.load(path)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    halved = {part: {k: v.half().float() for k, v in state.items()} for part, state in weights.items()}
    assert equal(tiny.states(loaded), halved)


def test_integers_keep_their_type(tmp_path):
    path = tmp_path / "a.safetensors"
    save_parts(path, tiny.CONFIG, {"diffuser.image": {"n": torch.tensor([70000])}}, dtype=torch.float16)
    assert read_parts(path).parts["diffuser.image"]["n"].item() == 70000


def test_training_records_add_up(tmp_path, codi):
    one = tiny.save(tmp_path / "1.safetensors", codi, PARTS[:2], training=[{"stage": "a"}])
    two = tiny.save(tmp_path / "2.safetensors", codi, PARTS[2:], training=[{"stage": "b"}, {"stage": "c"}])
    assert [r["stage"] for r in read_parts([one, two]).training] == ["a", "b", "c"]


def test_a_model_may_be_spread_over_files(tmp_path, codi, weights):
    files = split(tmp_path, codi)
    assert equal(read_parts(reversed(files)).parts, weights)
    assert equal(tiny.states(CoDi.load([str(f) for f in files])), weights)


def test_only(tmp_path, codi, checkpoint):
    assert read_parts(checkpoint, only=["autoencoders.image"]).parts.keys() == {"autoencoders.image"}
    assert read_parts(split(tmp_path, codi), only=["diffuser.audio"]).parts.keys() == {"diffuser.audio"}


def test_only_a_part_that_is_missing(tmp_path, codi):
    with pytest.raises(ValueError, match="has no diffuser.audio, prompt_encoders.text: add the file"):
        read_parts(split(tmp_path, codi)[0], only=["autoencoders.audio", "diffuser.audio", "prompt_encoders.text"])


def test_missing_part(tmp_path, codi):
    with pytest.raises(ValueError, match="has no prompt_encoders.text: add the file"):
        CoDi.load(split(tmp_path, codi)[:-1])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint file .*nowhere.safetensors"):
        CoDi.load(tmp_path / "nowhere.safetensors")


def test_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint file"):
        read_parts(tmp_path)


def test_no_file():
    with pytest.raises(ValueError, match="No checkpoint file was given"):
        read_parts([])


def test_missing_mini(monkeypatch, tmp_path):
    monkeypatch.setattr(mini, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="shipped model's weights are missing"):
        CoDi.load("mini")


def test_foreign_safetensors(tmp_path):
    save_file({"model.weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="lora.safetensors holds no CoDi configuration"):
        read_parts(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("key", ["weight", "vae.weight", "vae.encoder.weight", "diffuser.weight"])
def test_foreign_tensor(tmp_path, key):
    save_file({key: torch.zeros(2)}, tmp_path / "odd.safetensors", {"codi_config": tiny.CONFIG.to_json()})
    with pytest.raises(ValueError, match=f"odd.safetensors holds {key}, which belongs to no part"):
        read_parts(tmp_path / "odd.safetensors")


def test_files_of_two_models(tmp_path, codi):
    first = tiny.save(tmp_path / "first.safetensors", codi, PARTS[:1])
    other = tiny.build(dataclasses.replace(tiny.CONFIG, name="other"))
    second = tiny.save(tmp_path / "second.safetensors", other, PARTS[1:])
    with pytest.raises(ValueError, match="second.safetensors belongs to another model"):
        read_parts([first, second])


def rewrite(path, checkpoint, tensors=lambda t: t, config=None):
    save_file(tensors(load_file(checkpoint)), path, {"codi_config": config or tiny.CONFIG.to_json()})
    return path


def test_newer_configuration(tmp_path, checkpoint):
    config = json.dumps({**json.loads(tiny.CONFIG.to_json()), "flavour": 1})
    with pytest.raises(ValueError, match="no field flavour: the file was written by a newer version"):
        CoDi.load(rewrite(tmp_path / "new.safetensors", checkpoint, config=config))


def test_damaged_configuration(tmp_path, checkpoint):
    with pytest.raises(ValueError, match="not a CoDi configuration"):
        CoDi.load(rewrite(tmp_path / "odd.safetensors", checkpoint, config="{"))


BIAS = "diffuser.image.time_embed.0.bias"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if k != BIAS}, r"lacks 1 of the \d+ tensors of diffuser.image"),
        (
            lambda t: {**t, BIAS: torch.zeros(7)},
            r"0.bias of diffuser.image as \[7\] where \[128\] is needed",
        ),
        (
            lambda t: {**t, "diffuser.image.flavour": torch.zeros(7)},
            "1 tensors that diffuser.image does not have",
        ),
        (
            lambda t: {**t, BIAS: t[BIAS].to(torch.uint8)},
            "as uint8, where a floating-point number is needed",
        ),
        (lambda t: {**t, BIAS: t[BIAS].to(torch.complex64)}, "as complex64, where a floating-point number is needed"),
    ],
    ids=["missing", "shape", "surplus", "integers", "complex"],
)
def test_tensors_that_do_not_fit(tmp_path, checkpoint, spoil, message):
    with pytest.raises(ValueError, match=f"^odd.safetensors .*{message}"):
        CoDi.load(rewrite(tmp_path / "odd.safetensors", checkpoint, spoil))


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch, codi):
    path = tiny.save(tmp_path / "a.safetensors", codi)
    before = path.read_bytes()

    def fail(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        tiny.save(path, codi)
    assert path.read_bytes() == before
