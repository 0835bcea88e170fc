"""The pack as ComfyUI lists it."""

import sys

import pytest
import torch
from host.comfy_host import PACK
from host.workflow_files import WORKFLOWS

# Saved workflows know nodes by these names.
NODES = {
    "CoDiAlignment",
    "CoDiAlignmentCurve",
    "CoDiAlignmentPair",
    "CoDiBlendVisionOutputs",
    "CoDiColourMatch",
    "CoDiContextComponents",
    "CoDiContextGuider",
    "CoDiContextImage",
    "CoDiContextText",
    "CoDiDecodeAudio",
    "CoDiDecodeImage",
    "CoDiDecodeText",
    "CoDiDecodeVideo",
    "CoDiEditTextLatent",
    "CoDiEmbeddingFromTensor",
    "CoDiEmptyLatent",
    "CoDiEncodeAudio",
    "CoDiEncodeImage",
    "CoDiEncodeText",
    "CoDiEncodeVideo",
    "CoDiExampleScene",
    "CoDiFocus",
    "CoDiGuider",
    "CoDiHoldStreams",
    "CoDiInterpolate",
    "CoDiJoinLatents",
    "CoDiLoadEmbedding",
    "CoDiLoadModel",
    "CoDiMixContexts",
    "CoDiPickBest",
    "CoDiPromptAudio",
    "CoDiPromptImage",
    "CoDiPromptText",
    "CoDiPromptVideo",
    "CoDiSampleAudio",
    "CoDiSampleImage",
    "CoDiSampleText",
    "CoDiSampleVideo",
    "CoDiSampler",
    "CoDiSaveEmbedding",
    "CoDiSimilarity",
    "CoDiSplitLatent",
}


def test_pack_has_its_nodes(host):
    assert host.pack_nodes == NODES


@pytest.mark.parametrize("name", sorted(NODES))
def test_node_explains_itself(host, name):
    schema = host.node(name).GET_SCHEMA()
    assert schema.category.startswith("CoDi/") and schema.description and schema.search_aliases
    inputs = [one for entry in schema.inputs for one in entry.get_all()]
    assert [entry.id for entry in inputs if not entry.tooltip] == []
    assert [i for i, output in enumerate(schema.outputs) if not output.tooltip] == []
    # The editor would show it in place of a translation.
    assert [entry.id for entry in inputs if entry.display_name] == []
    page = (PACK / "nodes" / "web" / "docs" / f"{name}.md").read_text()
    assert page.startswith(f"# {schema.display_name}\n")
    assert [entry.id for entry in schema.inputs if entry.id not in page] == []


def test_checkpoints_come_from_the_pack_and_from_the_models_folder(host):
    choices = host.module("nodes.files").model_choices()
    assert choices[0] == "mini (built in)" and "tiny.safetensors" in choices


def test_without_torchaudio_only_sounds_are_missing(host, run_node, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"] + ["torchaudio"]:
        monkeypatch.setitem(sys.modules, name, None)
    with torch.inference_mode():
        _, encoders, vae, audio_vae, text_vae = host.node("CoDiLoadModel").execute(checkpoint="tiny.safetensors").args
    for kind, content in {"Text": {"text": "a star"}, "Image": {"image": torch.rand(1, 64, 64, 3)}}.items():
        assert run_node(f"CoDiPrompt{kind}", prompt_encoders=encoders, **content)[0][0][0].isfinite().all()
    assert run_node("CoDiDecodeImage", samples={"samples": torch.randn(1, 4, 8, 8)}, vae=vae)[0].isfinite().all()
    assert run_node("CoDiDecodeText", samples={"samples": torch.randn(1, 24, 1, 1)}, text_vae=text_vae)
    audio = {"waveform": torch.randn(1, 1, 16000), "sample_rate": 16000}
    sounds = {
        "CoDiPromptAudio": {"prompt_encoders": encoders, "audio": audio},
        "CoDiDecodeAudio": {"samples": {"samples": torch.randn(1, 8, 32, 8)}, "audio_vae": audio_vae},
    }
    for name, inputs in sounds.items():
        with pytest.raises(
            ImportError, match="^Sounds need torchaudio, .* install the torchaudio that goes with torch"
        ):
            run_node(name, **inputs)


def test_server_lists_the_nodes_and_serves_their_help(server):
    info = server.get("/object_info/CoDiEmptyLatent")["CoDiEmptyLatent"]
    assert info["python_module"] == "custom_nodes.codi_pack"
    assert server.read("/extensions/codi_pack/docs/CoDiEmptyLatent.md").startswith(b"# ")


def test_template_browser_finds_the_workflows(server):
    names = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    assert sorted(server.get("/workflow_templates")["codi_pack"]) == names
    for name in names:
        assert server.read(f"/api/workflow_templates/codi_pack/{name}.jpg").startswith(b"\xff\xd8"), "no thumbnail"
