"""Names and help in other words than the schemas': all there, nothing left over."""

import json
import re

from host.comfy_host import PACK

LOCALES = PACK / "locales"
HELP = PACK / "nodes" / "web" / "docs"
# Names that ComfyUI's own Chinese texts do not translate.
KEPT = {"Latent", "VAE", "CFG"}


def leaves(tree: dict, path: tuple = ()) -> dict[tuple, str]:
    found = {}
    for key, value in tree.items():
        found |= leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return found


def english_texts(schema) -> dict[tuple, str]:
    """What the editor shows of a node and looks up in nodeDefs.json, by the path where it looks."""
    texts = {("display_name",): schema.display_name, ("description",): schema.description}
    for entry in schema.inputs:
        for one in entry.get_all():
            # The inputs of an Autogrow are called by its name and theirs.
            name = entry.id if one is entry else f"{entry.id}_{one.id}"
            if one is entry:
                texts["inputs", name, "name"] = one.id
            if one.tooltip:
                texts["inputs", name, "tooltip"] = one.tooltip
        if getattr(entry, "control_after_generate", None):
            texts["inputs", "control_after_generate", "name"] = "control after generate"
    for i, output in enumerate(schema.outputs):
        texts["outputs", str(i), "tooltip"] = output.tooltip
        if output.display_name:
            texts["outputs", str(i), "name"] = output.display_name
    return {path: text for path, text in texts.items() if text}


def test_names_and_tooltips_are_translated(host):
    expected = {}
    for name in host.pack_nodes:
        expected |= {(name, *path): text for path, text in english_texts(host.node(name).GET_SCHEMA()).items()}
    translated = leaves(json.loads((LOCALES / "zh" / "nodeDefs.json").read_text(encoding="utf-8")))
    assert sorted(expected.keys() - translated.keys()) == []
    assert sorted(translated.keys() - expected.keys()) == []
    english = {path: text for path, text in translated.items() if not is_chinese(text)}
    assert {path: text for path, text in english.items() if path[-1] != "name" or text not in KEPT} == {}


def test_sockets_that_appear_one_by_one_have_tooltips(host):
    # The editor takes all other texts in English from the schemas.
    sockets = {}
    for name in host.pack_nodes:
        texts = english_texts(host.node(name).GET_SCHEMA())
        named = {path[1] for path in texts if path[0] == "inputs" and path[2] == "name"}
        sockets |= {(name, *path): texts[path] for path in texts if path[0] == "inputs" and path[1] not in named}
    assert leaves(json.loads((LOCALES / "en" / "nodeDefs.json").read_text(encoding="utf-8"))) == sockets


def is_chinese(text: str) -> bool:
    return bool(re.search(r"[\u4e00-\u9fff]", text))


def test_categories_and_types_are_translated(host):
    types = host.module("nodes.runtime.types")
    own = {getattr(types, name).io_type for name in dir(types) if name.endswith("Type")}
    texts = {name: json.loads((LOCALES / name / "main.json").read_text(encoding="utf-8")) for name in ("en", "zh")}
    assert set(texts["en"]["dataTypes"]) == set(texts["zh"]["dataTypes"]) == own
    stock = {"loaders", "latent", "sampling", "conditioning", "image"}  # ComfyUI translates these
    parts = {part for name in host.pack_nodes for part in host.node(name).GET_SCHEMA().category.split("/")[1:]}
    assert set(texts["zh"]["nodeCategories"]) == parts - stock


def test_templates_have_the_name_of_the_pack():
    # By the folder that ComfyUI-Manager installs to, which is the registry's id.
    project = re.search(r'^name = "(.*)"', (PACK / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    for locale in ("en", "zh"):
        texts = json.loads((LOCALES / locale / "main.json").read_text(encoding="utf-8"))
        assert texts["templateWorkflows"]["category"][project].startswith("CoDi ")


def test_help_pages_are_translated(host):
    names = json.loads((LOCALES / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    for name in host.pack_nodes:
        english = (HELP / f"{name}.md").read_text(encoding="utf-8").splitlines()
        chinese = (HELP / name / "zh.md").read_text(encoding="utf-8").splitlines()
        assert chinese[0] == f"# {names[name]['display_name']}"
        for mark in ("|", "#", "```"):
            count = [sum(line.startswith(mark) for line in lines) for lines in (english, chinese)]
            assert count[0] == count[1], f"{name}: the page in Chinese has other tables or headings"
    translated = {path.parent.name for path in HELP.glob("*/zh.md")}
    assert translated == host.pack_nodes == {path.stem for path in HELP.glob("*.md")}


def test_server_hands_the_translations_out(server):
    texts = server.get("/i18n")
    assert is_chinese(texts["zh"]["nodeDefs"]["CoDiLoadModel"]["display_name"])
    assert {texts[name]["dataTypes"]["CODI_AUDIO_VAE"] for name in texts} == {"CoDi audio VAE", "CoDi 音频VAE"}
    assert server.read("/extensions/codi_pack/docs/CoDiLoadModel/zh.md").decode().startswith("# ")
