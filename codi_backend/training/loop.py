"""The training loop of all stages: accelerate, EMA, checkpoints, exact resume, loss curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..checks.numbers import MAX_SEED, require_whole
from .curves import Curves
from .execution import Execution, checkpoint_blocks
from .shares import SharedNoise, share
from .state import Rows, State

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Options:
    """How to train a stage. `save_every` and `log_every` are in steps, `seed` fixes weights, data and noise.

    `batch_size` samples make one update, however many processes and micro-batches share them (see `Execution`).
    `weight_interpolation` is the share of the initial weights in the final ones, from 0 (the default) to 1: it keeps
    some of what a short training forgets.
    """

    steps: int
    batch_size: int
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0
    save_every: int = 500
    log_every: int = 20
    weight_interpolation: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("samples a step", self.batch_size)):
            if value < 1:
                raise ValueError(f"Training of {value} {name} is not possible: choose 1 or more.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"A learning rate of {self.learning_rate} is not possible: choose one above 0, as 1e-4.")
        if not 0 <= self.weight_interpolation < 1:
            raise ValueError(f"A weight interpolation of {self.weight_interpolation} is not possible: choose 0 to 1.")
        require_whole(self.seed, "seed", 0, MAX_SEED)


class Stage(nn.Module):
    """What a stage provides: the trained networks as submodules with gradients, its data, and a loss.

    `forward(batch, generator)` returns the loss and a dict of figures to log. Randomness comes from the generator
    alone, which is seeded from (seed, step), so that an interrupted run resumes identically. It is drawn by
    `torch.randn`, `rand` or `randint` with the samples on the first axis, so that several processes can share a batch
    (`SharedNoise`). The loss is a mean over samples for the same reason. `Contrast` compares its samples with those of
    all processes.
    """

    name: str

    def batch(self, step: int, size: int, seed: int) -> Any:
        """The training batch of one step; a function of its arguments alone.

        A tensor or a list of `size` rows, or a dict or tuple of them.
        """
        raise TypeError(f"The stage {type(self).__name__} has no data.")

    def forward(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        raise TypeError(f"The stage {type(self).__name__} has no loss.")

    def samples(self, folder: Path, step: int) -> None:
        """Write samples of the stage after `step` steps; the parameters are averaged ones.

        `folder` may not exist yet. By default nothing is written.
        """


class _Batches(Dataset):
    """By step, the micro-batches of one process, which takes parts `first` to `last` of `parts`."""

    def __init__(self, stage: Stage, options: Options, mine: range, parts: int):
        self.stage, self.options, self.mine, self.parts = stage, options, mine, parts

    def __getitem__(self, step: int) -> list[Any]:
        batch = self.stage.batch(step, self.options.batch_size, self.options.seed)
        return [batch] if self.parts == 1 else [share(batch, part, self.parts) for part in self.mine]


def train(
    stage: Stage,
    options: Options,
    out: Path,
    report: Callable[[str], None] = print,
    execution: Execution | None = None,
    identity: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Train a stage, or go on with it where it stopped.

    Writes ``out/<stage>/state.pt`` (everything that a resume needs), ``loss.json``, ``loss.png``, TensorBoard events
    and what the stage writes into ``samples``. At the end the trained parameters of `stage` are their averages (EMA),
    interpolated with their initial values by `Options.weight_interpolation`.
    Under `accelerate launch` the processes share every batch, and the first of them reports and writes.
    `identity` holds digests of data and initial weights, as `check_identity` compares them.

    Returns
    -------
    dict
        The training record: options, seconds, machine, final losses.

    Raises
    ------
    ValueError
        If the run was begun with other options or another identity, or the batch cannot be shared out evenly.
    FloatingPointError
        If the loss is not finite.
    """
    from accelerate.utils import send_to_device

    execution = execution or Execution()
    folder = out / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = execution.accelerator()
    mine, parts = _parts(options, execution, accelerator)
    if execution.checkpointing:
        checkpoint_blocks(stage)
    trained = {name: p for name, p in stage.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        trained.values(), options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, options))
    wrapped, optimizer = accelerator.prepare(stage, optimizer)
    others = {"optimizer": optimizer, "schedule": schedule}
    if accelerator.scaler is not None:
        others["scaler"] = accelerator.scaler
    initial = {name: p.detach().clone() for name, p in trained.items()} if options.weight_interpolation else {}
    state = State(folder / "state.pt", trained, others)
    first, seconds, history, recent = state.load(options, identity or {})
    curves = Curves(folder, stage.name, first) if accelerator.is_main_process and first < options.steps else None
    batches = DataLoader(
        _Batches(stage, options, mine, parts),
        batch_size=None,
        sampler=range(first, options.steps),
        num_workers=execution.workers,
        collate_fn=list,  # as they are
        generator=torch.Generator(),  # leaves the common one alone
    )
    begun = time.monotonic()
    for done, batch in enumerate(batches, first + 1):
        losses: Rows = []
        for part, micro in zip(mine, batch):
            generator = torch.Generator().manual_seed(options.seed * 1_000_003 + done - 1)
            # Gradients are exchanged once a step, with the last micro-batch.
            with nullcontext() if part == mine[-1] else accelerator.no_sync(wrapped):
                with nullcontext() if parts == 1 else SharedNoise(generator, part, parts):
                    loss, figures = wrapped(send_to_device(micro, accelerator.device), generator)
                if not math.isfinite(value := float(loss.detach())):
                    raise FloatingPointError(
                        f"The loss of stage {stage.name} is {value} at step {done - 1}: lower the learning rate."
                    )
                accelerator.backward(loss / len(mine))
            losses.append({"loss": value, **figures})
        accelerator.clip_grad_norm_(trained.values(), options.clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        state.average(min(options.ema, done / (done + 9)))
        recent.append(_means(losses))
        last, spent = done == options.steps, seconds + time.monotonic() - begun
        logs, saves = (last or done % every == 0 for every in (options.log_every, options.save_every))
        if logs or saves:
            recent = _over_processes(recent, accelerator)
        if logs:
            history.append({"step": done, **_means(recent)})
            recent = []
            if curves:
                curves.add(history[-1], schedule.get_last_lr()[0])
                left = (time.monotonic() - begun) / (done - first) * (options.steps - done)
                report(_line(stage.name, history[-1], options.steps, spent, left))
        if curves and saves:
            state.save(asdict(options), identity or {}, step=done, seconds=spent, history=history, recent=recent)
            if history:
                curves.write(history)
        if curves and execution.sample_every and (last or done % execution.sample_every == 0):
            with state.averaged_weights(), torch.no_grad():
                stage.samples(folder / "samples", done)
    if curves:
        curves.close()
    state.use_average()
    with torch.no_grad():
        for name, value in initial.items():
            trained[name].lerp_(value, options.weight_interpolation)
    return {
        "stage": stage.name,
        "options": asdict(options),
        "minutes": round((seconds + time.monotonic() - begun) / 60, 1),
        "machine": f"{accelerator.device.type}, {torch.get_num_threads()} threads, "
        f"{accelerator.num_processes} process(es)",
        "precision": accelerator.mixed_precision,
        "torch": torch.__version__,
        "final": history[-1] if history else {},
    }


def _parts(options: Options, execution: Execution, accelerator: Accelerator) -> tuple[range, int]:
    """The parts of every batch that this process takes, and how many there are."""
    parts = accelerator.num_processes * execution.micro_batches
    if options.batch_size % parts:
        raise ValueError(
            f"A batch of {options.batch_size} cannot be shared evenly by {accelerator.num_processes} process(es) with "
            f"{execution.micro_batches} micro-batch(es) each: choose a multiple of {parts}."
        )
    first = accelerator.process_index * execution.micro_batches
    return range(first, first + execution.micro_batches), parts


def learning_rate_factor(step: int, options: Options) -> float:
    warm = min(1.0, (step + 1) / options.warmup) if options.warmup else 1.0
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / options.steps))))


def _means(rows: Rows) -> dict[str, float]:
    """Means by key, over the rows that have it: a stage with several kinds of batches logs other figures for each."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    return {key: sum(values) / len(values) for key, values in columns.items()}


def _over_processes(rows: Rows, accelerator: Accelerator) -> Rows:
    """Each row's mean over all processes."""
    if accelerator.num_processes == 1:
        return rows
    from accelerate.utils import gather_object

    return [_means(same) for same in zip(*gather_object([rows]))]


def _line(name: str, row: dict[str, float], steps: int, spent: float, left: float) -> str:
    text = "  ".join(f"{key} {value:.4f}" for key, value in row.items() if key != "step")
    return f"{name} {row['step']}/{steps}  {text}  {spent / 60:.1f} min, {left / 60:.1f} left"
