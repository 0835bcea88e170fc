"""How a stage is run on a machine; the results differ by rounding only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import nn
from torch.utils.checkpoint import checkpoint

from ..models.diffuser.layer_plan import Stage as Block

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Execution:
    """Settings that may differ from one resume to the next.

    Attributes
    ----------
    precision : {"no", "bf16", "fp16"}, optional
        Of the networks' arithmetic; weights stay single. By default that of `accelerate launch`, or "no".
    micro_batches : int
        Number of parts in which a process takes its share of the batch, one after the other, to save memory.
    checkpointing : bool
        Compute the activations of the diffusers' blocks again in the backward pass, to save memory.
    workers : int
        Processes that prepare batches ahead.
    sample_every : int
        Steps between two calls of `Stage.samples`; 0 for never.
    """

    precision: str | None = None
    micro_batches: int = 1
    checkpointing: bool = False
    workers: int = 0
    sample_every: int = 1000

    def __post_init__(self) -> None:
        if self.precision not in (None, "no", "bf16", "fp16"):
            raise ValueError(f"There is no precision {self.precision!r}; choose from no, bf16, fp16.")
        if self.micro_batches < 1:
            raise ValueError(f"A batch cannot be taken in {self.micro_batches} parts: choose 1 or more.")
        if self.workers < 0:
            raise ValueError(f"{self.workers} processes cannot prepare data: choose 0 or more workers.")
        if self.sample_every < 0:
            raise ValueError(f"Samples cannot be {self.sample_every} steps apart: choose 0, for none, or more.")

    def accelerator(self) -> Accelerator:
        """This process among those that train together, and its device."""
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        # Some parameters are not used in some steps, such as connectors in a step without source streams.
        sparse = DistributedDataParallelKwargs(find_unused_parameters=True)
        return Accelerator(mixed_precision=self.precision, kwargs_handlers=[sparse])


def checkpoint_blocks(module: nn.Module) -> None:
    """Let every block of the diffusers inside `module` compute its activations again during the backward pass."""
    for block in module.modules():
        if isinstance(block, Block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
