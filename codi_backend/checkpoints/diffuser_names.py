"""Translation between our and the published parameter names of one network (SPEC sections 0 and 2.1 to 2.3)."""

from __future__ import annotations

import re

# Pairs of patterns and replacements, one table per direction.
_TO_REFERENCE = [
    (r"^environment_encoder\.", "connecters_out."),
    (r"^input_connectors\.(\d+)\.", r"input_block_connecters_in.\1.0."),
    (r"^output_connectors\.(\d+)\.", r"output_block_connecters_in.\1.0."),
    (r"\.(pos_embeds|frame_rate_embeds)\.weight$", r".\1"),
    (r"\.(temporal_attn\.norm|ff\.proj_out\.0)\.weight$", r".\1.g"),
]
_FROM_REFERENCE = [
    (r"^connecters_out\.", "environment_encoder."),
    (r"^input_block_connecters_in\.(\d+)\.0\.", r"input_connectors.\1."),
    (r"^output_block_connecters_in\.(\d+)\.0\.", r"output_connectors.\1."),
    (r"\.(pos_embeds|frame_rate_embeds)$", r".\1.weight"),
    (r"\.(temporal_attn\.norm|ff\.proj_out\.0)\.g$", r".\1.weight"),
]


def _rename(key: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def to_reference(key: str) -> str:
    """Published name of one of our parameters, both without the network's prefix."""
    return _rename(key, _TO_REFERENCE)


def from_reference(key: str) -> str:
    """Our name of a published parameter, both without the network's prefix."""
    return _rename(key, _FROM_REFERENCE)
