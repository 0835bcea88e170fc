"""`codi evaluate`: do the runs, make the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..checks import require_whole
from ..diffusion import MAX_CANDIDATES, MAX_RESULTS
from ..model import CoDi
from . import runs as codi_runs
from . import tables as codi_tables
from . import versatile_runs, versatile_tables
from .earlier_report import extended, read_report
from .fingerprints import fingerprint
from .report import write_report
from .runs import Settings, choose, heading, lacking, perform, read_records


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
    extend: Path | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Measure a model on Shapes & Chimes.

    That is fidelity, bridging, interpolation, coupling, synchrony and held streams; of Versatile Diffusion the four
    flows, dual guidance, focus, fidelity to a start and editing.

    Judged results go to ``out/runs`` while they are made, and are used again when model and settings are the same. So
    an evaluation can be interrupted, and extended to more samples, and several processes can share one by doing
    different `runs`.

    Parameters
    ----------
    out : Path
        Folder for ``evaluation.json``, ``evaluation.md``, plots and ``runs``.
    samples : int
        Results behind each figure. (For tempo fewer: scenes of one object have none.)
    clips : int, optional
        The same where it takes videos, which cost 20 times as much as pictures: as many as `samples` by default.
    steps : int, optional
        The model's own by default, as `guidance` and `candidates`; the sampler is the model's.
    candidates : int, optional
        See `Settings`.
    runs : iterable of str, optional
        Names of the runs to do, from `RUNS` of `runs` or `versatile_runs`; all by default. The tables are made from all
        that are in `out`.
    extend : Path, optional
        The ``evaluation.json`` of an earlier evaluation, of the same model and settings, whose judged results need not
        be in `out`: runs go on from where it ended, and figures are of all results together, see `figures.together`.
    say : callable
        Is told how far it is.

    Returns
    -------
    str
        The tables in Markdown.

    Raises
    ------
    ValueError
        For fewer than one sample, an unknown run, a model that can do none of the runs, or a report that cannot be
        extended.
    """
    candidates = codi.config.candidates if candidates is None else candidates
    require_whole(candidates, "candidates", 1, MAX_CANDIDATES)
    samples = require_whole(samples, "samples", 1, MAX_RESULTS)
    clips = clips if clips is None else require_whole(clips, "clips", 1, MAX_RESULTS)
    if codi.config.diffuser.contexts:
        every, make_tables = versatile_runs.RUNS, versatile_tables.make_tables
    else:
        every, make_tables = codi_runs.RUNS, codi_tables.make_tables
    chosen = choose(every, runs)
    settings = Settings(seed=seed, candidates=candidates, **codi.config.sampling(steps, guidance=guidance))
    missing = {run.name: reason for run in every.values() if (reason := lacking(codi, run))}
    todo = [run for run in chosen if run.name not in missing]
    if not todo:
        raise ValueError(f"This model cannot be evaluated so: {missing[chosen[0].name]} (run {chosen[0].name}).")
    fewer = {} if clips is None else {"clips": clips}
    shared = {"model": codi.config.name, "weights": fingerprint(codi), "samples": samples, **fewer, **vars(settings)}
    earlier = read_report(extend, shared) if extend else None
    prompts = dict(earlier["prompts"]) if earlier else {}
    able = [run for run in every.values() if run.name not in missing]
    heads = {run.name: heading(codi, fingerprint(codi, run), run, settings, prompts.get(run.name, 0)) for run in able}
    files = {name: _file(out, head) for name, head in heads.items()}
    further = {run.name: run.prompts(samples, clips) - prompts.get(run.name, 0) for run in able}
    for run in todo:
        perform(codi, run, heads[run.name], files[run.name], further[run.name], say)

    records = {}
    for name, wanted in further.items():
        done = read_records(files[name], heads[name])
        if 0 < wanted <= len(done):
            records[name] = done[:wanted]
            prompts[name] = prompts.get(name, 0) + wanted
        elif name not in prompts:
            missing[name] = f"{len(done)} of {wanted} prompts done"
    tables = make_tables(records)
    return write_report(out, shared, prompts, extended(earlier, tables) if earlier else tables, missing)


def _file(out: Path, heading: Mapping[str, Any]) -> Path:
    later = f"_from_{heading['first']}" if "first" in heading else ""
    return out / "runs" / f"{heading['run']}{later}.json"
