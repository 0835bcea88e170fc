"""A stage that takes no time, for tests of how it is run; as a program, two runs of it under `accelerate launch`."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from codi_backend.training.contrast import Contrast, TimeContrast
from codi_backend.training.execution import Execution
from codi_backend.training.loop import Options, Stage, train

OPTIONS = Options(steps=10, batch_size=8, learning_rate=0.05, warmup=3, seed=7, save_every=4, log_every=3)


class Toy(Stage):
    """Two linear maps agree on noisy points; `fail_at` ends the run there, as a power cut would.

    Of its other maps, `even` is used in every second step and `idle` never.
    """

    name = "toy"

    def __init__(self, fail_at=None, contrast=True):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.even, self.idle = (nn.Linear(3, 4) for _ in range(4))
        self.contrast = Contrast() if contrast else None
        self.time_contrast = TimeContrast() if contrast else None
        self.fail_at = fail_at

    def batch(self, step, size, seed):
        if step == self.fail_at:
            raise KeyboardInterrupt
        points = torch.randn(size, 3, generator=torch.Generator().manual_seed(1000 * seed + step))
        labels = [str(i % 5) for i in range(size)]
        return {"points": (points, torch.full((size, 1), step)), "labels": labels}

    def forward(self, batch, generator):
        points, step = batch["points"]
        noise = torch.randn(points.shape, generator=generator) + torch.rand(len(points), 1, generator=generator)
        sign = torch.randint(0, 2, (len(points), 1), generator=generator) * 2 - 1
        a, b = self.a(points + noise), self.b(sign * points)
        if step[0] % 2 == 0:
            a = a + self.even(points)
        error = (a - b).square().mean() + (a.mean(1) - points[:, 0]).square().mean()
        if self.contrast:
            error = error + self.contrast(F.normalize(a, dim=-1), F.normalize(b, dim=-1), batch["labels"])
            error = error + self.time_contrast(*(torch.stack([rows, rows.roll(1, 1)], 1) for rows in (a, b)))
        return error, {"length": float(a.detach().square().mean())}

    def samples(self, folder, step):
        folder.mkdir(exist_ok=True)
        (folder / f"{step}.txt").write_text(str(self.a.weight.tolist()))


def run(out, report=lambda line: None, options=OPTIONS, execution=None, **stage):
    stage = Toy(**stage)
    record = train(stage, options, Path(out), report, execution)
    return {name: p.detach().clone() for name, p in stage.named_parameters()}, record


def write(*words):
    """A line in one piece: two processes that share an unbuffered output would write into each other's otherwise."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    _, record = run(out / "straight", lambda line: write("REPORT", line))
    write("MACHINE", record["machine"])
    try:
        run(out / "cut", fail_at=6)
    except KeyboardInterrupt:
        run(out / "cut")
    run(out / "micro", execution=Execution(micro_batches=2), contrast=False)
    try:
        run(out / "odd", options=replace(OPTIONS, batch_size=7))
    except ValueError as error:
        write("ERROR", error)
