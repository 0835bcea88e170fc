"""The check of inputs that all judges use."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...checks.numbers import require_finite


def finite(values: Any, what: str) -> np.ndarray:
    """An array or tensor as float32. A `ValueError` names the content (`what`) if values are not finite."""
    values = values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)
    values = values.astype(np.float32)
    require_finite(values, f"The {what} to judge", "make it again")
    return values
