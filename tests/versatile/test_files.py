"""Versatile Diffusion's published files: names in both layouts, loading, and the distinction from CoDi's."""

import gzip
import json

import pytest
import tiny
import torch
import versatile_files
from checkpoints import test_codi
from versatile_golden import GOLDEN

from codi_backend.checkpoints import codi as published
from codi_backend.checkpoints import versatile as published_versatile
from codi_backend.checkpoints.convert import convert
from codi_backend.checkpoints.inspect import inspect
from codi_backend.checkpoints.native import read_parts
from codi_backend.checkpoints.parts import part_names
from codi_backend.cli.main import main
from codi_backend.config import CoDiConfig
from codi_backend.pipeline import CoDi

FOUR_FLOW, IMAGE_VAE, TEXT_VAE = "vd-four-flow-v1-0.pth", "kl-f8.pth", "optimus-vae.pth"


@pytest.fixture(scope="module")
def manifest():
    """Shapes by new name, schedule included, and the new name of every old one of the networks."""
    content = json.loads(gzip.decompress((GOLDEN / "published_shapes.json.gz").read_bytes()))
    return {key: tuple(shape) for key, shape in content["shapes"].items()}, content["old_to_new"]


@pytest.fixture(scope="module")
def full():
    with torch.device("meta"):
        return CoDi(published_versatile.CONFIG)


@pytest.fixture(scope="module")
def small():
    return tiny.build(tiny.VERSATILE)


@pytest.fixture(scope="module")
def layouts(small):
    return dict(zip(("new", "old"), versatile_files.states(small)))


@pytest.fixture
def as_published(monkeypatch):
    """Let the small model be what published files hold."""
    monkeypatch.setattr(published_versatile, "CONFIG", tiny.VERSATILE)
    monkeypatch.setattr(published_versatile.configure, "__defaults__", (tiny.VERSATILE,))


def read(names):
    """For each part, our names with shapes, of tensors by their published names."""
    states = {}
    for key, shape in names.items():
        if part := published_versatile.part_of(key):
            states.setdefault(part, {})[key] = torch.empty(shape, device="meta")
    config = published_versatile.CONFIG
    return {part: published_versatile.from_published(part, state, config) for part, state in states.items()}


def shapes(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def test_full_size_names_and_shapes_are_those_of_the_manifest(full, manifest):
    schedule = {key for key in manifest[0] if "." not in key}
    assert len(schedule) == 12
    ours = shapes(full.to_reference_state_dict())
    assert ours == {key: shape for key, shape in manifest[0].items() if key not in schedule}


@pytest.mark.parametrize("layout", ["new", "old", "old names of the rest, new of the networks"])
def test_full_size_files_fill_every_part(full, manifest, layout):
    new, old_to_new = manifest
    names = new
    if layout != "new":
        names = {f"model.diffusion_model.{old}": new[key] for old, key in old_to_new.items()}
        for key, shape in new.items():
            if not key.startswith(("diffuser.", "ctx.text.")):
                key = key.replace("vae.image.", "autokl.").replace("vae.text.", "optimus.")
                names[key.replace("ctx.image.", "clip.")] = shape
    found = read(names)
    assert found.keys() == full.parts().keys()
    for part, module in full.parts().items():
        needed = shapes(module.state_dict())
        assert {key: shape for key, shape in shapes(found[part]).items() if key in needed} == needed
        spare = found[part].keys() - needed.keys()
        assert all(key.startswith("ctx.") for key in spare)  # of two copies of CLIP one is needed
        assert bool(spare) == (layout == "new" and part.startswith("prompt_encoders."))


def test_both_layouts_name_the_same_tensors(manifest):
    for old, new in manifest[1].items():
        keys = {f"model.diffusion_model.{old}", new}
        parts = {published_versatile.part_of(key) for key in keys}
        [part] = parts
        assert len({*read(dict.fromkeys(keys, (1,)))[part]} - keys) == 1, old


def test_every_part_has_a_file():
    assert set(part_names(published_versatile.CONFIG)) == set(published_versatile.FILES)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("layout", ["new", "old"])
def test_files_load_with_all_their_parts(tmp_path, as_published, small, layouts, layout, bare):
    state = layouts[layout] | {"betas": torch.zeros(1000)}
    if bare:
        state = {k.replace("autokl.", "vae.image.").replace("optimus.", "vae.text."): v for k, v in state.items()}
    files = versatile_files.save_files(tmp_path, state, bare)
    assert len(files) == (3 if bare else 1)
    codi = CoDi.load(files.values())
    assert codi.config == small.config and codi.outputs == ("text", "image")
    assert codi.report.edition == "published Versatile Diffusion" and codi.report.unknown == 1
    assert not tiny.changed(small.state_dict(), codi.state_dict())


def test_a_state_dict_goes_around_unchanged(small, layouts):
    for state in layouts.values():
        assert not tiny.changed(small.state_dict(), CoDi.from_state_dict(state, small.config).state_dict())


def test_files_of_the_autoencoders_alone(tmp_path, as_published, layouts):
    files = versatile_files.save_files(tmp_path, layouts["new"], bare=True)
    codi = CoDi.load([files[IMAGE_VAE], files[TEXT_VAE]])
    assert set(codi.parts()) == {"autoencoders.image", "autoencoders.text"}
    with pytest.raises(ValueError, match=f"cannot generate image: load {FOUR_FLOW} too, which holds it"):
        codi.generate(codi, ["image"])


def test_a_copy_in_the_large_file_counts_more_than_a_file_of_its_own(tmp_path, as_published, small, layouts):
    files = versatile_files.save_files(tmp_path, layouts["new"], bare=True)
    torch.save(layouts["new"], files[FOUR_FLOW])
    other = {key: value + 1 for key, value in torch.load(files[IMAGE_VAE]).items()}
    torch.save(other, files[IMAGE_VAE])
    for order in (list(files), list(files)[::-1]):
        codi = CoDi.load([files[name] for name in order])
        assert not tiny.changed(small.state_dict(), codi.state_dict())
    assert codi.report.reports["autoencoders.image"].ignored == len(other)


def test_one_clip_is_enough(tmp_path, as_published, small, layouts):
    """Published CLIP files, or either of the two copies, do for both."""
    clip = {k.removeprefix("ctx.text.model."): v for k, v in layouts["new"].items() if k.startswith("ctx.text.")}
    rest = {key: value for key, value in layouts["new"].items() if not key.startswith("ctx.")}
    torch.save(rest, tmp_path / FOUR_FLOW)
    for i, copy in enumerate((clip, {f"ctx.text.model.{k}": v for k, v in clip.items()})):
        torch.save(copy, tmp_path / f"clip{i}.pth")
        codi = CoDi.load([tmp_path / FOUR_FLOW, tmp_path / f"clip{i}.pth"])
        assert not tiny.changed(small.state_dict(), codi.state_dict())


def test_a_network_comes_with_what_it_shares(tmp_path, as_published, layouts):
    [path] = versatile_files.save_files(tmp_path, layouts["new"]).values()
    only = ["diffuser.image", "contexts.text", "diffuser.time", "prompt_encoders.text", "autoencoders.image"]
    codi = CoDi.load(path, only=only)
    assert sorted(codi.parts()) == sorted(only) and codi.outputs == ("image",)
    with pytest.raises(ValueError, match="Networks of this model share layers: choose diffuser.image, con"):
        CoDi.load(path, only=["diffuser.image"])
    with pytest.raises(ValueError, match="share layers"):
        CoDi.load(path, only=["contexts.text", "diffuser.time"])
    assert read_parts(path, only=["contexts.image"]).parts["contexts.image"]["15.norm.weight"].shape == (32,)


@pytest.mark.parametrize("missing", ["diffuser.text.context_blocks.", "diffuser.image.time_embed."])
def test_networks_without_what_they_share_are_not_taken_for_others(tmp_path, as_published, layouts, missing):
    state = {key: value for key, value in layouts["new"].items() if not key.startswith(missing)}
    if "time" in missing:
        state = {key: value for key, value in state.items() if "context_blocks" not in key}
    [path] = versatile_files.save_files(tmp_path, state).values()
    if "time" in missing:
        with pytest.raises(ValueError, match="has no contexts.image, contexts.text, diffuser.time: add the file"):
            CoDi.load(path)
    else:
        assert CoDi.load(path).config.diffuser.contexts == ("image",)


def test_a_missing_tensor_names_file_and_part(tmp_path, as_published, layouts):
    """The original loads whatever fits without a message."""
    state = {key: value for key, value in layouts["new"].items() if key != "diffuser.text.data_blocks.29.0.2.weight"}
    [path] = versatile_files.save_files(tmp_path, state).values()
    with pytest.raises(ValueError, match=f"{FOUR_FLOW} lacks 1 of the .* of diffuser.text, such as out.2.weight"):
        CoDi.load(path)


def test_files_of_different_kinds_are_refused(tmp_path, as_published, layouts):
    [new] = versatile_files.save_files(tmp_path / "new", layouts["new"]).values()
    [old] = versatile_files.save_files(tmp_path / "old", layouts["old"]).values()
    with pytest.raises(
        ValueError, match="of Versatile Diffusion in its new layout .* in its old layout: load files of one"
    ):
        CoDi.load([new, old])
    codi = test_codi.fill_(CoDi(CoDiConfig.from_reference(test_codi.SMALL)), "")
    theirs = test_codi.split(codi.to_reference_state_dict(), tmp_path)
    for ours in (new, old):
        for name in (published.ENCODERS, "CoDi_text_diffuser.pth", "CoDi_audio_diffuser_m.pth"):
            with pytest.raises(
                ValueError, match=r"of different kinds, .* of CoDi .*|.* of Versatile .* load files of one"
            ):
                CoDi.load([theirs[name], ours])
    bare = tmp_path / IMAGE_VAE
    torch.save({k.removeprefix("vae.image."): v for k, v in layouts["new"].items() if "vae.image." in k}, bare)
    with pytest.raises(ValueError, match=f"CoDi_encoders.pth of CoDi and {IMAGE_VAE} of Versatile Diffusion"):
        CoDi.load([theirs[published.ENCODERS], bare])
    mixed = tmp_path / "mixed.pth"
    torch.save({**torch.load(theirs["CoDi_audio_diffuser_m.pth"]), **layouts["old"]}, mixed)
    with pytest.raises(ValueError, match="mixed.pth of CoDi and mixed.pth of Versatile Diffusion in its old layout"):
        CoDi.load(mixed)
    assert "of different kinds" in inspect(mixed).files[0].problem


@pytest.mark.parametrize("layout", ["new", "old"])
def test_inspect(tmp_path, as_published, small, layouts, layout):
    [path] = versatile_files.save_files(tmp_path, layouts[layout] | {"betas": torch.zeros(1000)}).values()
    findings = inspect(path)
    [file] = findings.files
    assert findings.sound and not findings.missing and file.unknown == 1
    assert (file.kind, file.edition, file.model) == (
        "published",
        "published Versatile Diffusion",
        "versatile-diffusion",
    )
    assert {part.name: part.found for part in file.parts} == {
        name: len(module.state_dict()) for name, module in small.parts().items()
    }


def test_inspect_names_the_missing_files(tmp_path, as_published, layouts, capsys):
    files = versatile_files.save_files(tmp_path, layouts["new"], bare=True)
    assert main(["inspect", str(files[IMAGE_VAE])]) == 0
    out = capsys.readouterr().out
    assert "model versatile-diffusion" in out and f"autoencoders.text ({TEXT_VAE})" in out
    assert f"diffuser.time ({FOUR_FLOW})" in out and "autoencoders.image (" not in out


def test_convert(tmp_path, as_published, small, layouts):
    [path] = versatile_files.save_files(tmp_path, layouts["old"]).values()
    written = list(convert(path, tmp_path / "ours"))
    assert {p.name for p in written} == {f"versatile-diffusion_{part}.safetensors" for part in small.parts()}
    codi = CoDi.load(written)
    assert codi.config == small.config and codi.report.edition == "codi-any-to-any"
    assert not tiny.changed(small.state_dict(), codi.state_dict())
    only = ["diffuser.text", "contexts.image", "diffuser.time"]
    [*some] = convert(written, tmp_path / "some", "fp16", only=only)
    assert sorted(CoDi.load(some).parts()) == sorted(only)
    assert CoDi.load(some).config.diffuser.contexts == ("image",)
