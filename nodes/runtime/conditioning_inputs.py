"""Checks of CONDITIONING inputs. A `ValueError` begins with the input's name."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...codi_backend.checks.inputs import as_embedding_tokens

# Key of prompts by time in the options of a conditioning.
SCHEDULE = "codi_schedule"


def one_prompt(conditioning: Any, name: str, advice: str) -> tuple[Tensor, dict]:
    """The tokens ``[B, L, D]`` and options of a CONDITIONING that holds one prompt.

    `ValueError` if it holds none or several; `advice` is the remedy for several.
    """
    pairs = conditioning if isinstance(conditioning, (list, tuple)) else ()
    if len(pairs) > 1:
        raise ValueError(f"{name}: this holds {len(pairs)} prompts that apply side by side; {advice}.")
    if not pairs or len(pairs[0]) != 2 or pairs[0][0] is None:
        raise ValueError(f"{name}: there is no prompt in this; connect one from a node that encodes prompts.")
    tokens, options = pairs[0]
    if SCHEDULE in options:
        raise ValueError(f"{name}: this holds prompts by time; connect the prompts before CoDi Prompt Schedule.")
    return as_embedding_tokens(tokens, f"{name}: this prompt"), options
