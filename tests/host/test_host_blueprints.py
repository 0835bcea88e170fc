"""The subgraph blueprints as shipped: whole, listed by the server, and they run on the built-in model."""

import json
from collections import Counter

import pytest
import torch
from host.blueprint_files import BLUEPRINTS, INPUT, OUTPUT, blueprint_names, place, read_blueprint
from host.comfy_host import PACK_NAME
from host.graph import Graph, Kept, register

NAMES = blueprint_names()
KINDS = ("positive", "unconditional")


@pytest.fixture
def run(host):
    """Run a graph whose outputs are kept; their values by name."""
    import nodes

    register(nodes.NODE_CLASS_MAPPINGS)

    def call(graph: Graph, outputs: dict[str, list]) -> dict:
        for name, link in outputs.items():
            graph.keep(name, link)
        host.run(graph.prompt)
        return {name: Kept.values[name][0] for name in outputs}

    yield call
    Kept.values.clear()
    host.forget()


def test_there_are_five():
    assert NAMES == [
        "Any Prompt to Any Output (CoDi)",
        "Mix of Prompts (CoDi)",
        "Sound for a Video (CoDi)",
        "Text to Everything (CoDi)",
        "Video for a Sound (CoDi)",
    ]


def test_server_lists_them(server):
    listed = server.get("/global_subgraphs")
    ours = {entry["name"]: key for key, entry in listed.items() if entry["info"]["node_pack"].endswith(PACK_NAME)}
    assert sorted(ours) == NAMES
    key = ours[NAMES[0]]
    assert json.loads(server.get(f"/global_subgraphs/{key}")["data"])["definitions"]


@pytest.mark.parametrize("name", NAMES)
def test_links_and_nodes_are_whole(host, name):
    outer, subgraph = read_blueprint(name)
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for node in nodes.values():
        assert not getattr(host.node(node["type"]), "DEPRECATED", False), node["type"]
        assert list(node.get("widgets_values_named", {}).values()) == (node.get("widgets_values") or [])
    for link in subgraph["links"]:
        key, start, end = link["id"], link["origin_id"], link["target_id"]
        if start == INPUT:
            assert key in subgraph["inputs"][link["origin_slot"]]["linkIds"]
        else:
            assert key in nodes[start]["outputs"][link["origin_slot"]]["links"]
        if end == OUTPUT:
            assert subgraph["outputs"][link["target_slot"]]["linkIds"] == [key]
        else:
            assert nodes[end]["inputs"][link["target_slot"]]["link"] == key
    taken = [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot["link"] is not None]
    taken += [key for entry in subgraph["outputs"] for key in entry["linkIds"]]
    assert Counter(taken) == Counter(link["id"] for link in subgraph["links"])
    for end in ("inputs", "outputs"):
        assert [(e["name"], e["type"]) for e in outer[end]] == [(e["name"], e["type"]) for e in subgraph[end]]
    widgets = [entry["name"] for entry in outer["inputs"] if "widget" in entry]
    assert outer["properties"]["proxyWidgets"] == [["-1", widget] for widget in widgets]


@pytest.mark.parametrize("name", NAMES)
def test_library_can_describe_it(name):
    extra = json.loads((BLUEPRINTS / f"{name}.json").read_text(encoding="utf-8"))["extra"]
    _, subgraph = read_blueprint(name)
    assert extra["BlueprintDescription"] == subgraph["description"] and subgraph["description"].endswith(".")
    assert "codi" in extra["BlueprintSearchAliases"] and subgraph["category"] == "CoDi"


def check(found: dict) -> None:
    """Results of the built-in model: 64 pixels, 16 frames, 2.56 s."""
    if "image" in found:
        assert found["image"].shape == (1, 64, 64, 3) and found["image"].std() > 0
    if "video" in found:
        parts = found["video"].get_components()
        assert parts.images.shape == (16, 64, 64, 3) and parts.audio["waveform"].abs().max() > 0
    if "audio" in found:
        assert found["audio"]["waveform"].shape[-1] >= 2.5 * 16000
    if "text" in found:
        assert isinstance(found["text"], str)


def test_text_to_everything(run):
    graph = Graph()
    found = run(graph, place(graph, "Text to Everything (CoDi)", text="two blue hearts", steps=2))
    assert set(found) == {"image", "video", "audio", "text"}
    check(found)


@pytest.mark.parametrize(
    ("name", "output"), [("Sound for a Video (CoDi)", "video"), ("Video for a Sound (CoDi)", "audio")]
)
def test_a_held_stream_stays(run, name, output):
    graph = Graph()
    scene = {"colour": "yellow", "shape": "circle", "count": 3, "tempo": "slow", "start": 0.3, "seed": 0}
    source = graph.add("CoDiExampleScene", **scene)[{"video": 1, "audio": 2}[output]]
    found = run(graph, place(graph, name, steps=2, **{output: source}) | {"source": source})
    check({key: value for key, value in found.items() if key != "source"})
    parts = found["video"].get_components()
    if output == "video":
        assert torch.equal(parts.images, found["source"].get_components().images)
    else:
        assert torch.equal(parts.audio["waveform"], found["source"]["waveform"])


def test_mixed_prompts_to_chosen_outputs(run):
    graph = Graph()
    model = graph.load()
    texts = [graph.add("CoDiPromptText", prompt_encoders=model[1], text=text) for text in ("a red star", "a blue star")]
    pairs = {f"{kind}_{i}": text[k] for i, text in enumerate(texts, 1) for k, kind in enumerate(KINDS)}
    mixed = place(graph, "Mix of Prompts (CoDi)", weight_1=3.0, **pairs)
    sockets = {"model": model, "vae": model[2], "audio_vae": model[3], "text_vae": model[4]}
    prompt = {"positive": mixed["positive"], "negative": mixed["unconditional"]}
    chosen = {"image_stream": True, "video_stream": False, "audio_stream": True, "text_stream": False}
    outputs = place(graph, "Any Prompt to Any Output (CoDi)", steps=2, **sockets, **prompt, **chosen)
    wanted = {key: outputs[key] for key in ("image", "audio")} | mixed | pairs
    for key in ("video", "text"):  # not connected, so the editor leaves their decoders out
        del graph.prompt[outputs[key][0]]
    found = run(graph, wanted)
    check({key: found[key] for key in ("image", "audio")})
    for kind in KINDS:
        one, other, both = (found[key][0][0] for key in (f"{kind}_1", f"{kind}_2", kind))
        torch.testing.assert_close(both, 0.75 * one + 0.25 * other)
