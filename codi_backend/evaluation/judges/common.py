"""What the judges share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...checks import require_finite


def finite(values: Any, what: str) -> np.ndarray:
    """Anything like an array as float32; a `ValueError` names what holds values that are not finite."""
    values = values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)
    values = values.astype(np.float32)
    require_finite(values, f"The {what} to judge", "make it again")
    return values
