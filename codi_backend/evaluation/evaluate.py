"""`codi evaluate`: perform the runs and make the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..checks.numbers import require_whole
from ..pipeline import CoDi
from ..processes import Processes
from ..sampling.noise import MAX_CANDIDATES, MAX_RESULTS
from . import emoji, versatile_runs, versatile_tables
from . import runs as codi_runs
from . import tables as codi_tables
from .fingerprints import fingerprint
from .records import batches, merge_batches, missing_batches, read_records
from .report import write_report
from .runs import Batch, Run, Settings, choose, generate_and_judge, heading, lacking, perform
from .tables import Table


@dataclass(frozen=True)
class _Suite:
    """What is measured: runs, how a batch is generated and judged, tables, and what else results depend on."""

    runs: Mapping[str, Run]
    batch: Batch
    make_tables: Callable[[Any], list[Table]]
    facts: Mapping[str, str] = field(default_factory=dict)


def _suite(codi: CoDi, data: Path | None) -> _Suite:
    if data is not None:
        judges = emoji.EmojiJudges(data)
        return _Suite(emoji.RUNS, partial(emoji.generate_and_judge, judges), emoji.make_tables, judges.identity)
    if codi.config.diffuser.contexts:
        return _Suite(versatile_runs.RUNS, generate_and_judge, versatile_tables.make_tables)
    return _Suite(codi_runs.RUNS, generate_and_judge, codi_tables.make_tables)


def evaluate(
    codi: CoDi,
    out: Path,
    samples: int = 200,
    clips: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    candidates: int | None = None,
    runs: Iterable[str] | None = None,
    log: Callable[[str], None] = print,
    processes: Processes = Processes(),  # noqa: B008, frozen
    data: Path | None = None,
) -> str:
    """Measure a model on Shapes & Chimes, or on the emoji dataset.

    A CoDi model is measured for fidelity, bridging, interpolation, coupling, adherence, synchrony and held streams;
    Versatile Diffusion for its four flows, dual guidance, focus, strength of the start image and editing.

    Judged results are written to ``out/runs`` during the evaluation, and are reused when model and settings are the
    same. An evaluation can therefore be interrupted and resumed or continued with more samples. Several processes share
    the batches.

    Parameters
    ----------
    out : Path
        Folder for ``evaluation.json``, ``evaluation.md``, plots and ``runs``.
    samples : int
        Results behind each figure. Tempo has fewer, since scenes of one object have no tempo.
    clips : int, optional
        Results behind each figure of runs with videos, which take 20 times as long as images; `samples` by default.
    steps : int, optional
        The model's default if None, as for `guidance` and `candidates`. The sampler is the model's.
    candidates : int, optional
        N of best-of-N, see `Settings`.
    runs : iterable of str, optional
        Names of the runs to perform, from `RUNS` of `runs`, `versatile_runs` or `emoji.runs`; all by default. The
        tables are made from all finished runs in `out`.
    log : callable
        Is called with lines of progress.
    processes : Processes
        This process among those of the evaluation; the first one writes the tables.
    data : Path, optional
        Folder of `codi dataset emoji`, to measure on it: images, texts, spoken names and instruments by prompts of
        other modalities, and agreement.

    Returns
    -------
    str
        The tables in Markdown; empty in the other processes.

    Raises
    ------
    ValueError
        For fewer than one sample, an unknown run, a dataset without the rows that are needed, or a model that can
        perform none of the runs.
    """
    candidates = codi.config.num_candidates if candidates is None else candidates
    require_whole(candidates, "candidates", 1, MAX_CANDIDATES)
    samples = require_whole(samples, "samples", 1, MAX_RESULTS)
    clips = clips if clips is None else require_whole(clips, "clips", 1, MAX_RESULTS)
    suite = _suite(codi, data)
    every = suite.runs
    chosen = choose(every, runs)
    settings = Settings(seed=seed, candidates=candidates, **codi.config.sampling(steps, guidance=guidance))
    missing = {run.name: reason for run in every.values() if (reason := lacking(codi, run))}
    todo = [run for run in chosen if run.name not in missing]
    if not todo:
        raise ValueError(
            f"Run {chosen[0].name} is impossible: {missing[chosen[0].name]}. Choose other runs with --runs."
        )
    fewer = {} if clips is None else {"clips": clips}
    shared = {"model": codi.config.name, "weights": fingerprint(codi), **suite.facts, "samples": samples, **fewer}
    shared |= vars(settings)
    able = [run for run in every.values() if run.name not in missing]
    heads = {run.name: {**heading(codi, fingerprint(codi, run), run, settings), **suite.facts} for run in able}
    files = {name: out / "runs" / f"{name}.json" for name in heads}
    prompts = {run.name: run.prompts(samples, clips) for run in able}
    share = set(processes.share([(run.name, batch) for run in todo for batch in batches(prompts[run.name])]))
    for run in todo:
        head, file, total = heads[run.name], files[run.name], prompts[run.name]
        own = [batch for batch in missing_batches(file, head, total) if (run.name, batch) in share]
        perform(codi, run, head, file, own, total, log, suite.batch)
    processes.gather([])
    if not processes.first:
        return ""
    for run in todo:
        merge_batches(files[run.name], heads[run.name])
    records = {}
    for name, wanted in prompts.items():
        done = read_records(files[name], heads[name])
        if len(done) >= wanted:
            records[name] = done[:wanted]
        else:
            missing[name] = f"{len(done)} of {wanted} prompts done"
    behind = {name: len(made) for name, made in records.items()}
    return write_report(out, shared, behind, suite.make_tables(records), missing)
