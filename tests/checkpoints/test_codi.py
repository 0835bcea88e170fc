"""The published files: names, shapes, editions, and what can be wrong with them."""

import gzip
import json
import pickle
import warnings
from pathlib import Path

import pytest
import tiny
import torch
from detweights import fill_
from safetensors.torch import save_file

from codi_backend.checkpoints import codi as published
from codi_backend.checkpoints.native import read_parts
from codi_backend.checkpoints.parts import part_names
from codi_backend.config import CoDiConfig
from codi_backend.pipeline import CoDi

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = json.loads((GOLDEN / "small_config.json").read_text())


@pytest.fixture(scope="module")
def small():
    """A model with all parts, small, with weights by rule."""
    return fill_(CoDi(CoDiConfig.from_reference(SMALL)), "")


@pytest.fixture(scope="module")
def small_state(small):
    return {key: value.clone() for key, value in small.to_reference_state_dict().items()}


@pytest.fixture
def as_published(monkeypatch, small):
    """Let the small model be what published files hold."""
    monkeypatch.setattr(published, "CONFIG", small.config)
    monkeypatch.setattr(published.configure, "__defaults__", (small.config,))


def split(state, folder, suffix=".pth", drop=lambda key: False, extra=None):
    """Write the files of an edition; returns them by name."""
    files = {}
    for key, value in state.items():
        if not drop(key):
            files.setdefault(published.FILES[published.part_of(key)], {})[key] = value
    paths = {}
    for name, content in files.items():
        content |= extra or {}
        paths[name] = (folder / name).with_suffix(suffix)
        if suffix == ".pth":
            torch.save(content, paths[name])
        else:
            save_file(content, paths[name])
    return paths


def test_full_size_names_and_shapes_are_those_of_the_manifest():
    with gzip.open(GOLDEN / "published_shapes.json.gz", "rt") as file:
        manifest = {key: tuple(shape) for key, shape in json.load(file).items()}
    with torch.device("meta"):
        state = CoDi(published.CONFIG).to_reference_state_dict()
    ours = {key: tuple(value.shape) for key, value in state.items()}
    duplicates = {key for key in manifest if ".fn_STFT." in key}
    assert ours == {key: shape for key, shape in manifest.items() if key not in duplicates}


def test_every_part_has_a_file_and_a_prefix():
    parts = set(part_names(published.CONFIG))
    assert parts == set(published.FILES) == set(published.PREFIXES.values())


def test_a_state_dict_goes_around_unchanged(small, small_state):
    again = CoDi.from_state_dict(small_state, small.config)
    assert not tiny.changed(small.state_dict(), again.state_dict())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_load_with_all_their_parts(tmp_path, as_published, small, small_state, suffix):
    schedule = {"betas": torch.zeros(1000), "alphas_cumprod": torch.zeros(1000)}
    paths = split(small_state, tmp_path, suffix, extra=schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codi = CoDi.load(paths.values())
    assert codi.config == small.config
    assert codi.report.edition == "published" and codi.report.unknown == 2 * len(paths)
    assert not tiny.changed(small.state_dict(), codi.state_dict())


def test_a_subset_of_the_files_gives_a_part_of_the_model(tmp_path, as_published, small_state):
    paths = split(small_state, tmp_path)
    codi = CoDi.load([paths["CoDi_encoders.pth"], paths["CoDi_audio_diffuser_m.pth"]])
    assert codi.outputs == ("audio",)
    with pytest.raises(ValueError, match="cannot generate text: load CoDi_text_diffuser.pth too"):
        codi.generate(codi.prompt("text", "rain"), ["text"], steps=1)
    with pytest.raises(ValueError, match="has no autoencoders.audio: load CoDi_encoders.pth too"):
        read_parts(paths["CoDi_audio_diffuser_m.pth"], only=["autoencoders.audio"])


def test_only_what_is_asked_for_is_loaded(tmp_path, as_published, small_state):
    paths = split(small_state, tmp_path)
    only = ["prompt_encoders.text", "diffuser.image", "autoencoders.image"]
    codi = CoDi.load(paths.values(), only=only)
    assert sorted(codi.parts()) == sorted(only) and codi.outputs == ("image", "video")


def test_further_tensors_are_counted_and_ignored(tmp_path, as_published, small_state):
    prefix = "model.diffusion_model.unet_audio."
    state = small_state | {f"{prefix}connecters_out_old.0.weight": torch.zeros(3)}
    paths = split(state, tmp_path, extra={"video_interp.x": torch.zeros(1)})
    codi = CoDi.load(paths["CoDi_audio_diffuser_m.pth"])
    assert codi.report.reports["diffuser.audio"].ignored == 1 and codi.report.unknown == 1


def test_the_first_edition_has_no_alignment_and_warns(tmp_path, as_published, small_state):
    paths = split(small_state, tmp_path, drop=lambda key: "connecter" in key)
    with pytest.warns(UserWarning, match="no latent alignment") as caught:
        codi = CoDi.load([paths["CoDi_encoders.pth"], paths["CoDi_audio_diffuser_m.pth"]])
    assert len(caught) == 1 and codi.report.edition == "published, without latent alignment"
    assert not codi.config.diffuser.networks["audio"].aligned


def test_the_width_of_environments_is_read_from_the_file(tmp_path, as_published, small, small_state):
    width = small.config.diffuser.networks["audio"].environment_dim
    state = dict(small_state)
    for key, value in small_state.items():
        if "unet_audio.connecters_out.4.2." in key:
            state[key] = torch.zeros(2 * width, *value.shape[1:])
        elif "unet_audio" in key and "connecters_in" in key and key.endswith(("attn2.to_k.weight", "2.to_v.weight")):
            state[key] = torch.zeros(value.shape[0], 2 * width)
    codi = CoDi.load(split(state, tmp_path)["CoDi_audio_diffuser_m.pth"])
    assert codi.config.diffuser.networks["audio"].environment_dim == 2 * width


def test_a_missing_tensor_names_file_and_part(tmp_path, as_published, small_state):
    paths = split(small_state, tmp_path, drop=lambda key: key.endswith("unet_audio.out.0.weight"))
    with pytest.raises(ValueError, match="audio_diffuser_m.pth lacks 1 of the .* of diffuser.audio, such as out.0"):
        CoDi.load(paths["CoDi_audio_diffuser_m.pth"])


def test_a_wrong_shape_names_the_tensor(tmp_path, as_published, small_state):
    state = small_state | {"model.diffusion_model.unet_audio.out.0.weight": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"holds out.0.weight of diffuser.audio as \[3\] where \[64\] is needed"):
        CoDi.load(split(state, tmp_path)["CoDi_audio_diffuser_m.pth"])


class Harm:
    def __reduce__(self):
        return (exit, ())


def test_a_pickle_with_code_is_not_run(tmp_path):
    torch.save({"autokl.x": torch.zeros(1), "y": Harm()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth contains more than tensors .* could run code"):
        CoDi.load(tmp_path / "evil.pth")


@pytest.mark.parametrize("share", [0.5, 0.01, 0.0])
def test_a_truncated_file(tmp_path, small_state, share):
    path = split(small_state, tmp_path)["CoDi_audio_diffuser_m.pth"]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        ValueError, match="^CoDi_audio_diffuser_m.pth is (empty|a PyTorch file that is cut short or damaged): fetch"
    ):
        CoDi.load(path)


def test_the_old_format_of_torch(tmp_path, as_published, small_state):
    state = {key: value for key, value in small_state.items() if "unet_audio" in key}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert CoDi.load(tmp_path / "old.pth").config.diffuser.networks.keys() == {"audio"}


def test_wrapped_state_dicts(tmp_path, as_published, small_state):
    state = {key: value for key, value in small_state.items() if "unet_audio" in key}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.ckpt")
    assert CoDi.load(tmp_path / "wrapped.ckpt").config.diffuser.networks.keys() == {"audio"}


def test_a_pickle_of_something_else(tmp_path):
    (tmp_path / "other.pth").write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(ValueError, match="other.pth"):
        CoDi.load(tmp_path / "other.pth")


def test_half_precision_stays_what_it_is_asked_to_be(tmp_path, as_published, small_state):
    halved = {key: value.half() if value.is_floating_point() else value for key, value in small_state.items()}
    path = split(halved, tmp_path)["CoDi_audio_diffuser_m.pth"]
    assert {p.dtype for p in CoDi.load(path, dtype=torch.float16).parameters()} == {torch.float16}
    assert {p.dtype for p in CoDi.load(path).parameters()} == {torch.float32}
