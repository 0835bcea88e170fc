"""The symmetric contrastive loss that aligns embeddings (InfoNCE, as in CLIP)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from ..models.diffuser.environment import resampled, temporal_channels


class Contrast(nn.Module):
    """Symmetric InfoNCE between two batches of unit vectors ``[B, D]``, with a learned temperature.

    Rows with equal `labels` are positives of each other, since a batch may hold equal captions. Where several processes
    train together, each row is compared with those of all processes.
    """

    def __init__(self, temperature: float = 0.07):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, a: Tensor, b: Tensor, labels: Sequence[str] | None = None) -> Tensor:
        if distributed.is_initialized():
            a, b, labels = _of_all_processes(a), _of_all_processes(b), labels and _labels_of_all_processes(labels)
        logits = self.log_scale.clamp(max=math.log(100)).exp() * a @ b.T
        if labels is None:
            target = torch.arange(len(a), device=a.device)
        else:
            number = {label: i for i, label in enumerate(dict.fromkeys(labels))}
            row = torch.tensor([number[label] for label in labels], device=a.device)
            target = (row[:, None] == row).float()
            target = target / target.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class TimeContrast(nn.Module):
    """Symmetric InfoNCE between the moments of two streams.

    Takes environment tokens ``[B, T, D]`` of both, which may have different numbers of time steps, and compares the
    channels of moments. Negatives are the other moments of the sample, and the same moment of other samples, those of
    all processes: without the latter, encoding the number of the time step would be enough.
    """

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if distributed.is_initialized():
            a, b = _of_all_processes(a), _of_all_processes(b)
        steps = min(a.shape[1], b.shape[1])
        a, b = (F.normalize(temporal_channels(resampled(tokens, steps)), dim=-1) for tokens in (a, b))
        among_samples = (t.transpose(0, 1) for t in (a, b))
        return (self._matching(a, b) + self._matching(*among_samples)) / 2

    def _matching(self, a: Tensor, b: Tensor) -> Tensor:
        """InfoNCE in each of N groups of M, ``[N, M, D]``."""
        logits = self.log_scale.clamp(max=math.log(100)).exp() * a @ b.transpose(1, 2)
        target = torch.arange(a.shape[1], device=a.device).repeat(len(a))
        both = (F.cross_entropy(each.flatten(0, 1), target) for each in (logits, logits.transpose(1, 2)))
        return sum(both) / 2


def _of_all_processes(rows: Tensor) -> Tensor:
    """The rows of all processes, of which this process's alone have a gradient here.

    The gradient is as many times too large as there are processes, since the processes' gradients are averaged.
    """
    processes = distributed.get_world_size()
    gathered = [torch.empty_like(rows) for _ in range(processes)]
    distributed.all_gather(gathered, rows.detach().contiguous())
    gathered[distributed.get_rank()] = rows.detach() + processes * (rows - rows.detach())
    return torch.cat(gathered)


def _labels_of_all_processes(labels: Sequence[str]) -> list[str]:
    gathered: list[list[str]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(gathered, list(labels))
    return [label for part in gathered for label in part]
