"""The pack as ComfyUI lists it."""

import pytest
from host.comfy_host import PACK

NODES = {
    "CoDiLoadModel",
    "CoDiPromptText",
    "CoDiEmptyLatent",
    "CoDiAlignment",
    "CoDiDecodeImage",
    "CoDiDecodeAudio",
}


def test_pack_has_its_nodes(host):
    assert host.pack_nodes == NODES


@pytest.mark.parametrize("name", sorted(NODES))
def test_node_explains_itself(host, name):
    schema = host.node(name).GET_SCHEMA()
    assert schema.category.startswith("CoDi/") and schema.description and schema.search_aliases
    assert [entry.id for entry in schema.inputs if not entry.tooltip] == []
    assert (PACK / "nodes" / "web" / "docs" / f"{name}.md").read_text().startswith("# ")


def test_checkpoints_come_from_the_pack_and_from_the_models_folder(host):
    choices = host.module("nodes.files").model_choices()
    assert choices[0] == "mini (built in)" and "tiny.safetensors" in choices


def test_server_lists_the_nodes_and_serves_their_help(server):
    info = server.get("/object_info/CoDiEmptyLatent")["CoDiEmptyLatent"]
    assert info["python_module"] == "custom_nodes.codi_pack"
    assert server.read("/extensions/codi_pack/docs/CoDiEmptyLatent.md").startswith(b"# ")


def test_browser_finds_the_workflow(server):
    assert server.get("/workflow_templates")["codi_pack"] == ["text_to_image_and_sound"]
