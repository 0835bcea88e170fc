"""`codi pack` and `codi dataset preview` into a folder that holds their earlier results."""

import pytest
import torch
from tiny import build, states

from codi_backend.checkpoints.native import save_parts
from codi_backend.data.preview import write_preview
from codi_backend.pipeline import CoDi
from codi_backend.training import pack as packing


@pytest.fixture
def run(tmp_path):
    """A run folder with all parts of the tiny model."""
    codi = build()
    (tmp_path / "run" / "parts").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(codi.config.to_json())
    for part, state in states(codi).items():
        save_parts(tmp_path / "run" / "parts" / f"{part}.safetensors", codi.config, {part: state})
    return tmp_path / "run"


def test_shards_of_an_earlier_pack_go(run, tmp_path, monkeypatch):
    packed = tmp_path / "packed"
    monkeypatch.setattr(packing, "_FILE_SIZE", 200_000)
    assert len(packing.pack(run, packed)) > 4
    monkeypatch.undo()
    (packed / "tiny_notes.safetensors").write_text("mine")
    files = packing.pack(run, packed)
    assert len(files) == 4 + 1 == len({*files}) and {*packed.iterdir()} == {*files, packed / "tiny_notes.safetensors"}
    whole = {key: value for part in states(CoDi.load(files)).values() for key, value in part.items()}
    assert all(torch.isfinite(value).all() for value in whole.values())


def test_an_incomplete_run_leaves_the_earlier_pack(run, tmp_path):
    files = {path: path.read_bytes() for path in packing.pack(run, tmp_path / "packed")}
    (run / "parts" / "autoencoders.audio.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="autoencoders.audio.safetensors is missing"):
        packing.pack(run, tmp_path / "packed")
    assert {path: path.read_bytes() for path in (tmp_path / "packed").iterdir()} == files


def test_a_preview_replaces_an_earlier_one(tmp_path):
    out = tmp_path / "preview"
    write_preview(out, 3, 0, "train")
    (out / "7.png").write_text("mine")
    write_preview(out, 1, 0, "train")
    shown = {"0.png", "0.webp", "0.wav", "0_sound.png", "index.html", "contact_sheet.png"}
    assert {path.name for path in out.iterdir()} == shown | {"7.png"}
    with pytest.raises(ValueError, match="7.png exists and is no result of an earlier run"):
        write_preview(out, 8, 0, "train")
    assert {path.name for path in out.iterdir()} == shown | {"7.png"} and (out / "7.png").read_text() == "mine"
