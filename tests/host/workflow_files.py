"""The workflows as shipped, in the form that ComfyUI executes."""

from __future__ import annotations

import json
from pathlib import Path

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NOT_EXECUTED = {"Note", "MarkdownNote"}


def workflow_names() -> list[str]:
    return sorted(path.stem for path in WORKFLOWS.glob("*.json"))


def read_graph(name: str) -> dict:
    """The UI-format file ``workflows/<name>.json``."""
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def api_form(name: str) -> dict:
    """A prompt made from the UI-format file ``workflows/<name>.json``, as the browser makes it when one presses Run."""
    graph = read_graph(name)
    origins = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    return {
        str(node["id"]): {"class_type": node["type"], "inputs": _inputs(node, origins)}
        for node in graph["nodes"]
        if node["type"] not in NOT_EXECUTED
    }


def _inputs(node: dict, origins: dict) -> dict:
    # The browser reads the list and writes the names beside it.
    named = node.get("widgets_values_named", {})
    assert list(named.values()) == node.get("widgets_values", []), f"{node['type']} is saved inconsistently"
    slots = {slot["name"]: slot.get("link") for slot in node["inputs"]}
    values = {name: value for name, value in named.items() if name in slots}
    return values | {name: origins[link] for name, link in slots.items() if link is not None}
