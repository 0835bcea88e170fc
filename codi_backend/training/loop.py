"""The training loop that every stage shares: accelerate, EMA, checkpoints, exact resume, loss curves."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Options:
    """How to train a stage. `save_every` and `log_every` are in steps, `seed` fixes weights, data and noise."""

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


class Stage(nn.Module):
    """What a stage provides: the trained networks as submodules with gradients, its data, and a loss.

    `forward(batch, generator)` returns the loss and a dict of figures to log. Randomness comes from the generator
    alone, which is seeded from (seed, step, process), so that an interrupted run resumes on the very same path.
    """

    name: str

    def batch(self, step: int, size: int, seed: int) -> Any:
        """The training batch of one step; a function of its arguments alone."""
        raise TypeError(f"The stage {type(self).__name__} has no data.")

    def forward(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        raise TypeError(f"The stage {type(self).__name__} has no loss.")


class _Batches(torch.utils.data.IterableDataset):
    """The batches of one process, from `first` on; process r of n takes batch `step * n + r`."""

    def __init__(self, stage: Stage, options: Options, first: int, rank: int, processes: int):
        self.stage, self.options, self.first, self.rank, self.processes = stage, options, first, rank, processes

    def __iter__(self) -> Iterator[Any]:
        for step in range(self.first, self.options.steps):
            yield self.stage.batch(step * self.processes + self.rank, self.options.batch_size, self.options.seed)


def train(stage: Stage, options: Options, out: Path, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Train a stage, or go on with it where it stopped.

    Writes ``out/<stage>/state.pt`` (everything that a resume needs), ``loss.json`` and ``loss.png``. At the end the
    trained parameters of `stage` are the averaged ones (EMA).

    Returns
    -------
    dict
        The training record: options, seconds, machine, final losses.
    """
    from accelerate import Accelerator
    from accelerate.utils import send_to_device

    folder = out / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator()
    trained = {name: p for name, p in stage.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        trained.values(), options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, options))
    wrapped, optimizer = accelerator.prepare(stage, optimizer)
    state = _State(folder / "state.pt", trained, optimizer, schedule)
    first, seconds, history, recent = state.load(options)
    batches = _Batches(stage, options, first, accelerator.process_index, accelerator.num_processes)
    begun = time.monotonic()
    for step, batch in enumerate(batches, first):
        generator = torch.Generator().manual_seed(
            (options.seed * 1_000_003 + step) * accelerator.num_processes + accelerator.process_index
        )
        loss, figures = wrapped(send_to_device(batch, accelerator.device), generator)
        if not math.isfinite(value := float(loss.detach())):
            raise FloatingPointError(
                f"The loss of stage {stage.name} is {value} at step {step}: lower the learning rate."
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained.values(), options.clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        state.average(min(options.ema, (step + 1) / (step + 10)))
        recent.append({"loss": value, **figures})
        done = step + 1
        if done % options.log_every == 0 or done == options.steps:
            means = {key: sum(row[key] for row in recent) / len(recent) for key in recent[0]}
            recent = []
            history.append({"step": done, **means})
            spent = seconds + time.monotonic() - begun
            left = (time.monotonic() - begun) / (done - first) * (options.steps - done)
            if accelerator.is_main_process:
                text = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
                report(f"{stage.name} {done}/{options.steps}  {text}  {spent / 60:.1f} min, {left / 60:.1f} left")
        if accelerator.is_main_process and (done % options.save_every == 0 or done == options.steps):
            state.save(done, seconds + time.monotonic() - begun, history, recent, options)
            _plot(history, folder, stage.name)
    state.use_average()
    return {
        "stage": stage.name,
        "options": asdict(options),
        "minutes": round((seconds + time.monotonic() - begun) / 60, 1),
        "machine": f"{accelerator.device.type}, {torch.get_num_threads()} threads, "
        f"{accelerator.num_processes} process(es)",
        "torch": torch.__version__,
        "final": history[-1] if history else {},
    }


def _rate(step: int, options: Options) -> float:
    warm = min(1.0, (step + 1) / options.warmup) if options.warmup else 1.0
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / options.steps))))


class _State:
    """The trained parameters with their average, the optimizer, and the file that holds them."""

    def __init__(self, path: Path, trained: dict[str, Tensor], optimizer: Any, schedule: Any):
        self.path, self.trained, self.optimizer, self.schedule = path, trained, optimizer, schedule
        self.averaged = {name: p.detach().clone() for name, p in trained.items()}

    @torch.no_grad()
    def average(self, decay: float) -> None:
        averaged = list(self.averaged.values())
        torch._foreach_lerp_(averaged, [p.detach() for p in self.trained.values()], 1 - decay)

    @torch.no_grad()
    def use_average(self) -> None:
        for name, p in self.trained.items():
            p.copy_(self.averaged[name])

    def save(self, step: int, seconds: float, history: _Rows, recent: _Rows, options: Options) -> None:
        partial = self.path.with_suffix(".partial")
        torch.save(
            {
                "step": step,
                "seconds": seconds,
                "history": history,
                "recent": recent,  # steps since the last row of history
                "options": asdict(options),
                "trained": {name: p.detach() for name, p in self.trained.items()},
                "averaged": self.averaged,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
            },
            partial,
        )
        os.replace(partial, self.path)

    @torch.no_grad()
    def load(self, options: Options) -> tuple[int, float, _Rows, _Rows]:
        if not self.path.exists():
            return 0, 0.0, [], []
        saved = torch.load(self.path, weights_only=True, map_location="cpu")
        now = asdict(options)
        if changed := [k for k in now if k not in ("save_every", "log_every") and saved["options"][k] != now[k]]:
            raise ValueError(
                f"{self.path} was trained with another {' and '.join(changed)}: use the same, "
                "or remove it to start afresh."
            )
        for name, p in self.trained.items():
            p.copy_(saved["trained"][name])
            self.averaged[name] = saved["averaged"][name].to(p.device)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        return saved["step"], saved["seconds"], saved["history"], saved.get("recent", [])


def _plot(history: list[dict[str, float]], folder: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    (folder / "loss.json").write_text(json.dumps(history))
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for key in history[0]:
        if key != "step":
            axes.plot([row["step"] for row in history], [row[key] for row in history], label=key)
    axes.set(xlabel="step", title=title, yscale="log" if all(row["loss"] > 0 for row in history) else "linear")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / "loss.png", dpi=110)
    pyplot.close(figure)
