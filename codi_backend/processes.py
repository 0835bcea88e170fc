"""The processes of one command: one, or those that `accelerate launch` started, on one machine or several.

They share nothing but the output folder. Each takes every n-th item of the work, so that what is done by which process
follows from the number of processes alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

T = TypeVar("T")

# Processes wait for the slowest one, whose share may take days longer.
_TIMEOUT = timedelta(days=365)
# What accelerate and torchrun set; and where launchers put the number of processes.
_LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK")
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Processes:
    """This process among those of the command.

    Attributes
    ----------
    index, count : int
        Its number, from 0, and how many there are.
    local : int
        Its number on this machine.
    """

    index: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes what all have done."""
        return self.index == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """The items that this process takes: item i goes to process i mod n."""
        return list(items[self.index :: self.count])

    def gather(self, items: list[T]) -> list[T]:
        """Wait for all processes, and return the items of all of them, in their order."""
        if self.count == 1:
            return list(items)
        from accelerate.utils import gather_object

        return gather_object(items)

    def device(self, name: str) -> str:
        """Where this process computes: of several devices of a kind, such as "cuda", its own."""
        kind = getattr(torch, name, None)
        devices = kind.device_count() if self.count > 1 and hasattr(kind, "device_count") else 0
        return f"{name}:{self.local % devices}" if devices > 1 and name != "cpu" else name


def launched() -> Processes:
    """This process among those that `accelerate launch` started; a single one needs no accelerate."""
    several = any(int(os.environ.get(name) or 1) > 1 for name in _COUNTS)
    if not several or not any(name in os.environ for name in _LAUNCHED):
        return Processes()
    from accelerate import PartialState

    # On the CPU, since they exchange short lists only.
    state = PartialState(cpu=True, timeout=_TIMEOUT)
    return Processes(state.process_index, state.num_processes, state.local_process_index)
