"""The symmetric contrastive loss that aligns embeddings (InfoNCE, as in CLIP)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Contrast(nn.Module):
    """Symmetric InfoNCE between two batches of unit vectors ``[B, D]``, with a learned temperature."""

    def __init__(self, temperature: float = 0.07):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        logits = self.log_scale.clamp(max=math.log(100)).exp() * a @ b.T
        target = torch.arange(len(a), device=a.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
