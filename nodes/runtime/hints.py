"""Hints about texts on the node and in ComfyUI's log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from comfy_api.latest import io
from server import PromptServer

_shown: set[str] = set()
"""Ids of the nodes that show a hint."""


def show_hints(node: type[io.ComfyNode], hints: Sequence[str]) -> None:
    """Show hints below the widgets of the running node, or remove those of an earlier run."""
    for hint in hints:
        logging.warning("%s: %s", node.define_schema().display_name, hint)
    name = node.hidden.unique_id if node.hidden else None
    if name is None or not (hints or name in _shown):
        return
    (_shown.add if hints else _shown.discard)(name)
    # The page ignores an empty text.
    PromptServer.instance.send_progress_text("\n".join(hints) or " ", name)
