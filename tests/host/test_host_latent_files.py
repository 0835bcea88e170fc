"""Latents of any streams, saved and loaded."""

import json

import pytest
import torch
from host import core_models as core
from host.graph import Give, Graph, Kept, register
from safetensors import safe_open
from safetensors.torch import save_file


@pytest.fixture
def inputs(host):
    """ComfyUI's input folder."""
    from pathlib import Path

    import folder_paths

    return Path(folder_paths.get_input_directory())


@pytest.fixture
def through_a_file(host):
    """Save by one prompt, load by another; the latent that was loaded, and the path of the file."""
    register(host._nodes.NODE_CLASS_MAPPINGS)

    def call(latent, prefix="latents/test"):
        Give.values["latent"] = latent
        graph = Graph()
        saved = graph.add("CoDiSaveJointLatent", samples=graph.add("TestGive", name="latent"), filename_prefix=prefix)
        graph.keep("saved", saved)
        outputs = host.run(graph.prompt)
        assert Kept.values["saved"][0] is latent
        ((file,),) = [shown["latents"] for shown in outputs.values() if "latents" in shown]
        path = host.output / file["subfolder"] / file["filename"]
        host.node("CoDiLoadJointLatent").GET_SCHEMA()
        with torch.inference_mode():
            (loaded,) = (
                host.node("CoDiLoadJointLatent").execute(file=f"{file['subfolder']}/{file['filename']} [output]").args
            )
        return loaded, path

    return call


def same(one, other) -> bool:
    if hasattr(one, "unbind") and not torch.is_tensor(one):
        return all(map(same, one.unbind(), other.unbind()))
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key in one:
        if key != "codi_streams":
            assert same(one[key], other[key]), key


def test_everything_comes_back(run_node, through_a_file, host):
    model = core.build("ltxav")
    with torch.inference_mode():
        (sampled,) = host.node("KSampler")().sample(
            model, 0, 2, 1.0, "euler", "simple", core.conditioning("ltxav"), core.conditioning("ltxav"),
            core.ltx_latent(0, batch=2),
        )  # fmt: skip
    video, audio = sampled["samples"].unbind()
    first = {"samples": video, "noise_mask": torch.rand(1, 1, 4, 2, 3), "batch_index": [2, 5]}
    second = {"samples": audio, "type": "audio", "sample_rate": 16000, "offsets": torch.arange(3)}
    (joint,) = run_node("CoDiJoinLatents", latents={"latent_1": first, "latent_2": second}, names="film, music")
    loaded, path = through_a_file(joint)
    assert path.suffix == ".latent" and path.name.startswith("test_00001_")
    assert_same(loaded, joint)
    parts, expected = (run_node("CoDiSplitLatent", samples=latent)[4:6] for latent in (loaded, joint))
    for one, other in zip(parts, expected):
        assert_same(one, other)
        assert one["codi_streams"][0]["name"] == other["codi_streams"][0]["name"]
    again, other = through_a_file(loaded)
    assert_same(again, joint)
    assert other != path


def test_latents_of_the_stock_nodes_come_back(through_a_file):
    joint = core.h3_latent(0) | {"type": "audio", "downscale_ratio_spacial": 16}
    loaded, _ = through_a_file(joint)
    assert_same({k: v for k, v in loaded.items() if k != "codi_streams"}, joint)


def test_a_single_stream_is_read_by_the_stock_node(through_a_file, host, inputs):
    latent = {"samples": torch.randn(2, 64, 20), "type": "audio", "noise_mask": torch.zeros(1, 1, 20)}
    loaded, path = through_a_file(latent)
    assert_same(loaded, latent)
    (inputs / "single.latent").write_bytes(path.read_bytes())
    assert torch.equal(host.node("LoadLatent")().load("single.latent")[0]["samples"], latent["samples"])


def test_files_of_the_stock_node_are_read(host, run_node, inputs):
    latent = {"samples": torch.randn(1, 4, 8, 8)}
    result = host.node("SaveLatent")().save(latent, "latents/stock")["ui"]["latents"][0]["filename"]
    (loaded,) = run_node("CoDiLoadJointLatent", file=f"latents/{result} [output]")
    assert_same(loaded, latent)
    # Files from before 2023 hold scaled latents.
    save_file({"latent_tensor": latent["samples"].half()}, inputs / "old.latent")
    (loaded,) = run_node("CoDiLoadJointLatent", file="old.latent")
    stock = host.node("LoadLatent")().load("old.latent")[0]["samples"]
    torch.testing.assert_close(loaded["samples"], stock)


def test_the_workflow_is_in_the_file(through_a_file, monkeypatch):
    from comfy.cli_args import args

    latent = core.ltx_latent(0)
    _, path = through_a_file(latent)
    with safe_open(path, "pt") as file:
        prompt = json.loads(file.metadata()["prompt"])
    assert "CoDiSaveJointLatent" in {node["class_type"] for node in prompt.values()}
    monkeypatch.setattr(args, "disable_metadata", True)
    loaded, path = through_a_file(core.ltx_latent(1))
    with safe_open(path, "pt") as file:
        assert set(file.metadata()) == {"codi_latent"}
    assert loaded["samples"].unbind()[1].shape == (1, 8, 25, 16)


def test_the_list_has_saved_files_and_those_of_the_input_folder(host, through_a_file, inputs):
    _, path = through_a_file(core.ltx_latent(0))
    (inputs / "given.latent").write_bytes(path.read_bytes())
    (inputs / "other.txt").write_text("no latent")
    choices = host.module("nodes.latents.save_load").latent_choices()
    assert "given.latent" in choices and f"latents/{path.name} [output]" in choices and "other.txt" not in choices


def test_what_cannot_be_saved_is_left_out_with_a_warning(through_a_file, caplog):
    loaded, _ = through_a_file(core.ltx_latent(0) | {"model": object(), "fps": 24})
    assert loaded["fps"] == 24 and "model" not in loaded
    assert "CoDi Save Joint Latent: model of the latent is of type object and is not saved." in caplog.messages


@pytest.mark.parametrize("prefix", ["", "  ", "../../outside", "/etc/latent"])
def test_names_outside_of_the_output_folder(host, prefix):
    node = host.node("CoDiSaveJointLatent")
    with pytest.raises(ValueError, match="^filename_prefix: .* names no file within the output folder; give a name"):
        node.execute(samples=core.ltx_latent(0), filename_prefix=prefix)


def _foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def _cut_short(path):
    save_file({"latent_tensor": torch.zeros(1, 4, 8, 8)}, path)
    path.write_bytes(path.read_bytes()[:-9])


def _damaged(path):
    save_file({"latent_tensor": torch.zeros(1, 4, 8, 8)}, path, {"codi_latent": "{}"})


def _newer(path):
    described = json.dumps({"version": 2, "streams": [{"name": None, "keys": {}}]})
    save_file({"latent_tensor": torch.zeros(1, 4, 8, 8)}, path, {"codi_latent": described})


def _lacking(path):
    described = json.dumps({"version": 1, "streams": [{"name": None, "keys": {}}] * 2})
    save_file({"stream_1": torch.zeros(1, 4, 8, 8)}, path, {"codi_latent": described})


def _integers(path):
    save_file({"latent_tensor": torch.zeros(1, 4, 8, 8, dtype=torch.int64)}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_foreign, "holds no latent; choose a file of CoDi Save Joint Latent"),
        (_cut_short, "is no latent, or it is damaged; choose"),
        (lambda path: path.write_bytes(b""), "is no latent, or it is damaged; choose"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)), "is no latent, or it is damaged; choose"),
        (lambda path: path.write_text("hello, this is a text"), "is no latent, or it is damaged; choose"),
        (lambda path: torch.save({"latent_tensor": torch.zeros(3)}, path), "is no latent, or it is damaged; choose"),
        (_damaged, "has damaged metadata; save"),
        (_newer, "is of version 2 of the format; update"),
        (_lacking, "lacks a stream of its 2; save"),
        (_integers, r"holds \[1, 4, 8, 8\] torch.int64 where a latent should be; choose"),
    ],
)
def test_foreign_files(run_node, inputs, write, message):
    write(inputs / "bad.latent")
    with pytest.raises(ValueError, match=f"^file: bad.latent {message}") as error:
        run_node("CoDiLoadJointLatent", file="bad.latent")
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_files_that_are_not_there(run_node):
    with pytest.raises(ValueError, match="^file: there is no 'none.latent' in ComfyUI's input folder"):
        run_node("CoDiLoadJointLatent", file="none.latent")
