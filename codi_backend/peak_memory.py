"""The largest amount of memory that was held at once."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def forget_peak(device: str) -> None:
    """Count from now on, where the system can; otherwise the peak since the process began counts."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # only Linux has it
        return


def peak(device: str) -> int | None:
    """Bytes held at most: by PyTorch's allocator on a GPU, else by the process; None where the system does not count.

    On a CPU the pages of mapped files that were read are included.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
