"""`codi train coupler`: a coupler from saved latents, from a folder of files, or from Shapes & Chimes."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.coupler_file import save_coupler
from ..checkpoints.files import Source
from ..data.checks import check_entries
from ..data.pairs import Pairs
from ..modalities import MODALITIES, modality, scale_factor
from ..models.coupler import Coupler
from ..pipeline import CoDi
from .coupler import HELD_OUT, CouplerStage, retrieval
from .execution import Execution
from .fit_coupler import DEFAULTS, default_axes, new_coupler
from .latents import SceneLatents
from .loop import Options, train
from .pair_latents import PairLatents
from .saved_latents import read_pairs, stream_folders

OPTIONS = Options(
    DEFAULTS.steps, DEFAULTS.batch_size, DEFAULTS.learning_rate, DEFAULTS.warmup, ema=DEFAULTS.ema, save_every=250
)
_MODALITY_AXES = {"text": "", "image": "HW", "video": "THW", "audio": "TF"}
# Scenes of Shapes & Chimes that are encoded. Of images and texts `SceneLatents` makes eight times as many.
_SCENES = {"text": 2000, "image": 2000, "video": 4000, "audio": 16_000}


def train_coupler(
    pairs: Path | None,
    out: Path,
    init: Source = "mini",
    streams: Sequence[str] = (),
    axes: Mapping[str, str] | None = None,
    options: Options = OPTIONS,
    report: Callable[[str], None] = print,
    execution: Execution | None = None,
) -> Path:
    """Train a coupler, or go on where it stopped.

    Parameters
    ----------
    pairs : Path, optional
        A folder with a subfolder of saved latents for each stream, see `read_pairs`; or data as for `find_entries`,
        which the autoencoders of `init` encode. By default Shapes & Chimes.
    out : Path
        Run folder: state and curves, encoded latents, and ``coupler.safetensors``.
    init : str, path or iterable of paths
        Where the autoencoders come from.
    streams : sequence of str
        Of files: the modalities to couple.
    axes : dict of str to str, optional
        Of saved latents: see `LatentSpace`.

    Returns
    -------
    Path
        The coupler's file. Its record has the held-out retrieval accuracy by noise level.

    Raises
    ------
    FileNotFoundError, ValueError
        With a sentence about what is wrong with the arguments or the data.
    """
    execution = execution or Execution()
    accelerator = execution.accelerator()
    report_once = report if accelerator.is_main_process else _silent
    with accelerator.main_process_first():
        latents, axes = _latents(pairs, out, init, tuple(streams), dict(axes or {}), report_once, execution)
    held = min(HELD_OUT, min(len(z) for z in latents.values()) // 8)
    kept = {name: z[held:] for name, z in latents.items()}
    torch.manual_seed(options.seed)
    coupler = new_coupler(kept, axes).to(accelerator.device)
    stage = CouplerStage(coupler, kept)
    record = train(stage, options, out, report, execution, {"data": _digest(latents)})
    record["retrieval"] = _retrievals(coupler, {name: z[:held] for name, z in latents.items()}, report_once)
    path = out / "coupler.safetensors"
    if accelerator.is_main_process:
        save_coupler(path, coupler, record)
        (out / "coupler" / "retrieval.json").write_text(json.dumps(record["retrieval"], indent=1) + "\n")
        report(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    accelerator.wait_for_everyone()
    return path


def _latents(
    pairs: Path | None,
    out: Path,
    init: Source,
    streams: tuple[str, ...],
    axes: dict[str, str],
    report: Callable[[str], None],
    execution: Execution,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Clean latents by stream in the units of the autoencoders, and their axes."""
    if pairs is not None and stream_folders(pairs):
        if streams:
            raise ValueError("--streams is for files: saved latents are named by their folders.")
        latents = read_pairs(pairs)
        if unknown := sorted(axes.keys() - latents.keys()):
            raise ValueError(f"--axes: there are no latents {unknown[0]} in {pairs}, which has {', '.join(latents)}.")
        return latents, {name: axes.get(name) or default_axes(z) for name, z in latents.items()}
    if axes:
        raise ValueError("--axes is for saved latents: leave it out.")
    for name in streams:
        modality(name)
    names = streams or (tuple(MODALITIES) if pairs is None else ("image", "audio"))
    if pairs is not None and "text" in names:
        raise ValueError("Text of your own data is a prompt, not a stream: choose from image, video, audio.")
    networks = dict.fromkeys(modality(name).network for name in names)
    codi = CoDi.load(init, only=[f"autoencoders.{network}" for network in networks])
    codi.to(execution.accelerator().device)
    scaled: dict[str, Tensor] = {}
    if pairs is None:
        for name in names:
            scenes = SceneLatents.load_or_encode(
                out, codi, [name], count=_SCENES[name], report=report, workers=execution.workers
            )
            scaled |= scenes.latents
    else:
        found = check_entries(Pairs.find(pairs, codi.config, names, report), report)
        scaled |= PairLatents.load_or_encode(out, codi, found, workers=execution.workers, report=report).aligned(names)
    latents = {name: scaled[name].float() / scale_factor(codi.config, name) for name in names}
    return latents, {name: _MODALITY_AXES[name] for name in names}


def _retrievals(
    coupler: Coupler, latents: Mapping[str, Tensor], report: Callable[[str], None]
) -> dict[str, list[dict[str, float]]]:
    """Retrieval of every pair of streams among held-out latents, which is also reported."""
    found = {}
    for a, b in itertools.combinations(latents, 2):
        found[f"{a}-{b}"] = rows = retrieval(coupler, {name: latents[name] for name in (a, b)})
        levels = ", ".join(f"{row['accuracy']:.0%} at {row['sigma']:g}" for row in rows)
        report(f"{a} - {b}: of {len(latents[a])} held-out pairs the right one is found in {levels} (noise level).")
    return found


def _digest(latents: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, values in latents.items():
        digest.update(repr((name, tuple(values.shape))).encode())
        digest.update(values[:: max(1, len(values) // 64)].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _silent(line: str) -> None:
    pass
