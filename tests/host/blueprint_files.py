"""The subgraph blueprints as shipped, for graphs in the form that ComfyUI executes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from host.graph import Graph, Node

BLUEPRINTS = Path(__file__).resolve().parents[2] / "subgraphs"
INPUT, OUTPUT = -10, -20  # what the editor calls the ends of a subgraph


def blueprint_names() -> list[str]:
    return sorted(path.stem for path in BLUEPRINTS.glob("*.json"))


def read_blueprint(name: str) -> tuple[dict, dict]:
    """The node that stands for the blueprint ``subgraphs/<name>.json``, and its subgraph."""
    graph = json.loads((BLUEPRINTS / f"{name}.json").read_text(encoding="utf-8"))
    (node,), (subgraph,) = graph["nodes"], graph["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"] and subgraph["name"] == name
    return node, subgraph


def place(graph: Graph, name: str, **given: Any) -> dict[str, list]:
    """Add the nodes of a blueprint to a graph, as the editor does at Run; the links of its outputs by name.

    Inputs are values or links; a widget that is not given has the blueprint's value.
    """
    outer, subgraph = read_blueprint(name)
    widgets = [entry["name"] for entry in outer["inputs"] if "widget" in entry]
    given = dict(zip(widgets, outer["widgets_values"], strict=True)) | given
    values = [given[entry["name"]] for entry in subgraph["inputs"]]
    links = {link["id"]: link for link in subgraph["links"]}
    added: dict[int, Node] = {}

    def origin(link: dict):
        start, slot = link["origin_id"], link["origin_slot"]
        return values[slot] if start == INPUT else add(start)[slot]

    def add(key: int) -> Node:
        if key not in added:
            (node,) = [one for one in subgraph["nodes"] if one["id"] == key]
            slots = {slot["name"]: slot["link"] for slot in node["inputs"]}
            inputs = {one: value for one, value in node.get("widgets_values_named", {}).items() if one in slots}
            inputs |= {one: origin(links[link]) for one, link in slots.items() if link is not None}
            added[key] = graph.add(node["type"], **inputs)
        return added[key]

    ends = {link["target_slot"]: link for link in subgraph["links"] if link["target_id"] == OUTPUT}
    return {entry["name"]: origin(ends[i]) for i, entry in enumerate(subgraph["outputs"])}
