"""The built-in model of drawings, animations, instruments and spoken names: where its weights lie.

`emoji_cpu.json` is the configuration that they were trained with.
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "emoji_weights"
