"""The pack as ComfyUI lists it."""

from urllib.parse import quote

import pytest
import torch
from host.comfy_host import PACK
from host.workflow_files import WORKFLOWS

# Saved workflows know nodes by these names.
NODES = {
    "CoDiAddNoise",
    "CoDiAlignment",
    "CoDiAlignmentCurve",
    "CoDiAlignmentPair",
    "CoDiBatchLatents",
    "CoDiBlendVisionOutputs",
    "CoDiColourMatch",
    "CoDiContextComponents",
    "CoDiContextGuider",
    "CoDiContextImage",
    "CoDiContextText",
    "CoDiCoupleGuiders",
    "CoDiCouplerFromModel",
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
    "CoDiInterpolatePrompts",
    "CoDiJoinLatents",
    "CoDiLatentFromBatch",
    "CoDiLoadCoupler",
    "CoDiLoadEmbedding",
    "CoDiLoadJointLatent",
    "CoDiLoadModel",
    "CoDiMixContexts",
    "CoDiMixContextsByWeight",
    "CoDiPickBest",
    "CoDiPromptAudio",
    "CoDiPromptImage",
    "CoDiPromptSchedule",
    "CoDiPromptText",
    "CoDiPromptToClipVisionOutput",
    "CoDiPromptVideo",
    "CoDiRepeatLatentBatch",
    "CoDiSampleAudio",
    "CoDiSampleImage",
    "CoDiSampleText",
    "CoDiSampleVideo",
    "CoDiSampler",
    "CoDiSaveCoupler",
    "CoDiSaveEmbedding",
    "CoDiSaveJointLatent",
    "CoDiSetStreamMask",
    "CoDiSimilarity",
    "CoDiSliceLatent",
    "CoDiSplitLatent",
    "CoDiTrainCoupler",
    "CoDiUpscaleStream",
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


@pytest.mark.parametrize(
    ("old", "new"), [("CoDiInterpolate", "CoDiInterpolatePrompts"), ("CoDiMixContexts", "CoDiMixContextsByWeight")]
)
def test_nodes_for_saved_graphs_name_their_successors(host, old, new):
    schema, successor = (host.node(name).GET_SCHEMA() for name in (old, new))
    assert schema.is_deprecated and not successor.is_deprecated
    assert f"In new graphs use {successor.display_name}," in schema.description
    assert [one.get_io_type() for one in schema.outputs] == [one.get_io_type() for one in successor.outputs]


def test_checkpoints_come_from_the_pack_and_from_the_models_folder(host):
    choices = host.module("nodes.runtime.files").model_choices()
    assert choices[0] == "mini (built in)" and "tiny.safetensors" in choices


@pytest.mark.audio
def test_audio_without_torchaudio(host, run_node, without_torchaudio):
    """Newer ComfyUI does not bring it. The pack loads, prompts, encodes, samples and decodes audio."""
    with torch.inference_mode():
        model, encoders, _, audio_vae, _ = host.node("CoDiLoadModel").execute(checkpoint="tiny.safetensors").args
    tone = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(2 * 44100) / 44100).expand(1, 2, -1)
    audio = {"waveform": tone, "sample_rate": 44100}
    positive, negative = run_node("CoDiPromptAudio", prompt_encoders=encoders, audio=audio)
    assert positive[0][0].isfinite().all() and not torch.equal(positive[0][0], negative[0][0])
    (latent,) = run_node("CoDiEncodeAudio", audio=audio, audio_vae=audio_vae, seconds=0.0)
    assert latent["samples"].shape == (1, 8, 32, 8)
    with torch.inference_mode():
        sampled = host.node("KSampler")().sample(
            model, 0, 2, 2.0, "euler", "normal", positive, negative, latent, denoise=0.5
        )[0]
    assert sampled["samples"].shape == latent["samples"].shape
    (decoded,) = run_node("CoDiDecodeAudio", samples=sampled, audio_vae=audio_vae)
    assert decoded["waveform"].shape == (1, 1, 40960) and decoded["sample_rate"] == 16000
    assert decoded["waveform"].isfinite().all() and decoded["waveform"].std() > 0


@pytest.mark.audio
def test_audio_without_torchaudio_keeps_its_notes(host, run_node, without_torchaudio):
    """From 44.1 kHz through the built-in model and back: the judge finds what the scene has."""
    with torch.inference_mode():
        *_, audio_vae, _ = host.node("CoDiLoadModel").execute(checkpoint="mini (built in)").args
    scene = {"colour": "green", "shape": "circle", "count": 3, "tempo": "slow", "start": 0.3, "seed": 1}
    audio = run_node("CoDiExampleScene", **scene)[2]
    resample = host.module("codi_backend.models.autoencoders").resample
    audio = {"waveform": resample(audio["waveform"], audio["sample_rate"], 44100), "sample_rate": 44100}
    (latent,) = run_node("CoDiEncodeAudio", audio=audio, audio_vae=audio_vae, seconds=0.0)
    (decoded,) = run_node("CoDiDecodeAudio", samples=latent, audio_vae=audio_vae)
    judge = host.module("codi_backend.evaluation.judges.audio").judge_audio
    found = judge(decoded["waveform"][0], decoded["sample_rate"])
    assert (found.colour, found.count, found.tempo) == ("green", 3, "slow")


def test_server_lists_the_nodes_and_serves_their_help(server):
    info = server.get("/object_info/CoDiEmptyLatent")["CoDiEmptyLatent"]
    assert info["python_module"] == "custom_nodes.codi_pack"
    assert server.read("/extensions/codi_pack/docs/CoDiEmptyLatent.md").startswith(b"# ")


def test_template_browser_finds_the_workflows(server):
    names = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    assert sorted(server.get("/workflow_templates")["codi_pack"]) == names
    for name in names:
        assert server.read(quote(f"/api/workflow_templates/codi_pack/{name}.jpg")).startswith(b"\xff\xd8"), (
            "no thumbnail"
        )
