"""Loss curves: ``loss.json``, ``loss.png`` and TensorBoard events."""

from __future__ import annotations

import json
from pathlib import Path

from .state import Rows


class Curves:
    """The log of one run of a stage, in its folder."""

    def __init__(self, folder: Path, title: str, first: int):
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.title = folder, title
        # An interrupted run logs the steps after its last save once more.
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def add(self, row: dict[str, float], rate: float) -> None:
        """Log a row, and the learning rate, for TensorBoard."""
        for name, value in {**row, "learning_rate": rate}.items():
            if name != "step":
                self.board.add_scalar(name, value, row["step"])

    def write(self, history: Rows) -> None:
        """Write all rows as JSON and as an image."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        self.board.flush()
        (self.folder / "loss.json").write_text(json.dumps(history))
        figure, axes = pyplot.subplots(figsize=(7, 4))
        for key in dict.fromkeys(key for row in history for key in row if key != "step"):
            points = [(row["step"], row[key]) for row in history if key in row]
            axes.plot(*zip(*points), label=key)
        positive = all(row["loss"] > 0 for row in history)
        axes.set(xlabel="step", title=self.title, yscale="log" if positive else "linear")
        axes.legend()
        axes.grid(alpha=0.3)
        figure.savefig(self.folder / "loss.png", dpi=110)
        pyplot.close(figure)

    def close(self) -> None:
        self.board.close()
