"""The state of a training run and its file: trained parameters, their average (EMA), optimizer, schedule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.pickles import read_torch

Rows = list[dict[str, float]]
_OTHER = {"data": "other --data", "init": "another --init"}
_FREE = ("save_every", "log_every")  # options that may differ between the parts of a run


class State:
    """The trained parameters with their average, and everything else that a resume needs.

    Parameters
    ----------
    path : Path
        The file; written whole or not at all.
    trained : dict of str to Tensor
    others : dict of str to object
        Whatever else has a ``state_dict``: optimizer, schedule, gradient scaler.
    """

    def __init__(self, path: Path, trained: dict[str, Tensor], others: dict[str, Any]):
        self.path, self.trained, self.others = path, trained, others
        self.averaged = {name: p.detach().clone() for name, p in trained.items()}

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the average towards the parameters."""
        averaged = list(self.averaged.values())
        torch._foreach_lerp_(averaged, [p.detach() for p in self.trained.values()], 1 - decay)

    @torch.no_grad()
    def use_average(self) -> None:
        """Give the parameters their average values."""
        for name, p in self.trained.items():
            p.copy_(self.averaged[name])

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Context in which the parameters have their average values."""
        kept = {name: p.detach().clone() for name, p in self.trained.items()}
        self.use_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self.trained.items():
                    p.copy_(kept[name])

    def save(self, options: dict[str, Any], identity: dict[str, str], **progress: Any) -> None:
        """Write the file; `identity` is what `check_identity` compares, `progress` what `load` returns."""
        partial = self.path.with_suffix(".partial")
        torch.save(
            {
                **progress,
                "options": options,
                "identity": identity,
                "trained": {name: p.detach() for name, p in self.trained.items()},
                "averaged": self.averaged,
                **{name: other.state_dict() for name, other in self.others.items()},
            },
            partial,
        )
        os.replace(partial, self.path)

    @torch.no_grad()
    def load(self, options: Any, identity: dict[str, str]) -> tuple[int, float, Rows, Rows]:
        """Steps done, seconds spent, rows of the log, and figures of the steps since the last row.

        Options that the file lacks are taken to have had their defaults. More steps than before prolong a run.
        `ValueError` if the run was begun with other options otherwise, or with another identity, see `check_identity`.
        """
        if not self.path.exists():
            return 0, 0.0, [], []
        check_identity(self.path, identity)
        saved = _read(self.path)
        defaults = {f.name: f.default for f in fields(options) if f.default is not MISSING}
        before = defaults | saved["options"]
        if before["steps"] < options.steps:
            before["steps"] = options.steps
        changed = [name for name, value in vars(options).items() if name not in _FREE and before[name] != value]
        if changed:
            raise ValueError(
                f"{self.path} was trained with another {' and '.join(changed)}: use the same, "
                "or remove it to start afresh."
            )
        for name, p in self.trained.items():
            p.copy_(saved["trained"][name])
            self.averaged[name] = saved["averaged"][name].to(p.device)
        for name, other in self.others.items():
            if name in saved:
                other.load_state_dict(saved[name])
        return saved["step"], saved["seconds"], saved["history"], saved.get("recent", [])


def check_identity(path: Path, identity: dict[str, str]) -> bool:
    """Whether a state is known to come from the same data and weights; also if there is no state yet.

    Parameters
    ----------
    path : Path
        The state's file.
    identity : dict of str to str
        Digests by what they are of, as in ``{"data": ..., "init": ...}``; empty for Shapes & Chimes.

    Returns
    -------
    bool
        False for a state of an older edition, which has no identity.

    Raises
    ------
    ValueError
        If data or weights are others.
    """
    if not path.exists():
        return True
    before = _read(path).get("identity")
    if before is None:
        return not identity
    if changed := sorted(key for key in {*before, *identity} if before.get(key) != identity.get(key)):
        raise ValueError(
            f"{path} belongs to a run with {' and '.join(_OTHER.get(key, f'another {key}') for key in changed)}: give "
            "the same as then, or another --out, or remove the file to start afresh."
        )
    return True


def _read(path: Path) -> dict[str, Any]:
    """The contents of a state's file, memory-mapped. `ValueError` for a damaged file or another kind of file."""
    try:
        saved, _ = read_torch(path)
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read as the state of a run ({str(error).rstrip('.')}): remove it to start afresh."
        ) from error
    if not isinstance(saved, dict) or not {"options", "trained", "averaged", "step"} <= saved.keys():
        raise ValueError(f"{path} is not the state of a training run: remove it to start afresh.")
    return saved
