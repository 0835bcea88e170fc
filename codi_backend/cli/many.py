"""`codi generate --prompts`: every line of a file in a folder of its own, by any number of processes, resumable."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.files import resolve
from ..config import CoDiConfig
from ..media.contents import split_start
from ..media.earlier_results import PAGE, RECORD
from ..media.output_folder import check_names, replacing
from ..media.set_page import render_set
from ..pipeline import CoDi
from ..processes import Processes
from .console import error_message, print_line
from .extras import require
from .generate import generate, load, look
from .prompt_lines import SETTINGS, Line, read_lines
from .request import Request, check_request

MANIFEST = "manifest.jsonl"
_CHUNK = 2**20  # bytes

Row = dict[str, Any]


def generate_lines(options: argparse.Namespace, processes: Processes) -> int:
    """Generate what the lines of ``options.prompt_file`` ask for, and write ``manifest.jsonl`` and ``index.html``.

    Each line has a folder in ``options.out``, with the files of `codi generate`. A line whose folder holds the results
    of the same options, files and model is not generated again. A line that fails is reported and entered into the
    manifest, and the others go on. A line is a batch: a larger one would change the rounding of its results.

    Returns
    -------
    int
        Exit status: 1 in the first process if a line of any process failed.
    """
    path, out = Path(options.prompt_file), options.out
    if options.prompts or options.held:
        raise ValueError("--prompts names a file whose lines hold prompts and held streams: give no others beside it.")
    if options.starts:
        raise ValueError("--at is for the prompts of the command: leave it out beside --prompts.")
    config, parts = look(options.model)
    lines = read_lines(path, options)
    requests = {line.number: _request(line, path, config) for line in lines}
    valid = [request for request in requests.values() if isinstance(request, Request)]
    earlier = _earlier_manifest(out)
    _check_inputs(out, earlier, [path, *(file for request in valid for file in request.inputs)], requests)
    if any({"video", "audio"} & request.modalities for request in valid):
        require("av")
    (model,) = processes.gather([_model_digest(options)] if processes.first else [])
    needed = set().union(*(request.parts(config) for request in valid))
    codi: CoDi | None = None
    rows: list[Row] = []
    share = processes.share(lines)
    for done, line in enumerate(share, 1):
        request = requests[line.number]
        if isinstance(request, str):
            rows.append(_failure(line, request))
            continue
        key = _key(request, model)
        record = _finished(request.options.out, key)
        progress = f"{done} of {len(share)} lines"
        if record is not None:
            progress += f": line {line.number} was finished earlier"
        else:
            codi = codi or load(options, needed, parts)
            out.mkdir(parents=True, exist_ok=True)  # a line that fails removes the folders that it made
            try:
                record = _generate(request, config, codi, {"line": line.number, "request": key})
            except Exception as error:
                if (reason := error_message(error)) is None:
                    raise
                rows.append(_failure(line, f"Line {line.number} of {path}: {reason}"))
                continue
            progress += f": line {line.number} is finished"
        rows += _results(line, record)
        print(progress, file=sys.stderr, flush=True)
    rows = sorted(processes.gather(rows), key=lambda row: (row["line"], row.get("result", 0)))
    # Launchers end all processes when one returns an error, so the others return none while the first one writes.
    return _finish(options, rows, requests, earlier) if processes.first else 0


def _request(line: Line, path: Path, config: CoDiConfig) -> Request | str:
    """What a line asks for, or why that is impossible."""
    if line.options is None:
        return line.failure
    line.options.out /= _folder(line.number)
    try:
        return check_request(line.options, config)
    except ValueError as error:
        return f"Line {line.number} of {path}: {error}"


def _folder(line: int) -> str:
    """Name of the folder of a line's results."""
    return f"{line:06d}"


def _check_inputs(out: Path, earlier: set[str], inputs: Sequence[str | Path], numbers: Iterable[int]) -> None:
    """`ValueError` if a file that is read, or one of someone else, would be replaced by results of any line."""
    check_names(out, (MANIFEST, PAGE), earlier, inputs)
    folders = {(out / _folder(number)).resolve() for number in numbers}
    for file in inputs:
        if Path(file).resolve().parent in folders:
            raise ValueError(
                f"{file} is read by this run, whose result may replace it: choose another folder with --out."
            )


def _generate(request: Request, config: CoDiConfig, codi: CoDi, notes: Mapping[str, Any]) -> dict[str, Any]:
    for left in request.options.out.glob(".codi-*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    return generate(request, config, lambda: codi, bar=False, notes=notes)


def _failure(line: Line, reason: str) -> Row:
    print_line(reason)
    return {"line": line.number, **({"seed": line.options.seed} if line.options else {}), "failure": reason}


def _results(line: Line, record: Mapping[str, Any]) -> list[Row]:
    """The manifest's rows about the results of a line, with paths relative to the manifest."""
    return [
        {
            "line": line.number,
            "result": number,
            "seed": record["seed"],
            "files": {name: f"{_folder(line.number)}/{file}" for name, file in files.items()},
        }
        for number, files in enumerate(record["files"], 1)
    ]


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The record in a line's folder if it answers this request and its files are there."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = [folder / name for files in record["files"] for name in files.values()]
        return record if record["request"] == key and all(file.is_file() for file in files) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _key(request: Request, model: str) -> str:
    """A hash of all that the results of a line depend on; files count by their content."""
    prompts = [(name, *_identity(name, content, name != "text"), weight) for name, content, weight in request.prompts]
    held = [(name, *_identity(name, path, True)) for name, path in request.options.held]
    settings = {name: getattr(request.options, name) for name in SETTINGS} | {"outputs": request.outputs}
    return hashlib.sha256(json.dumps([model, prompts, held, settings]).encode()).hexdigest()


def _identity(name: str, content: str, is_file: bool) -> tuple[str, float | None]:
    if not is_file:
        return content, None
    path, start = split_start(name, content)
    try:
        return _digest([Path(path)]), start
    except OSError:  # reading it will give the reason
        return "", start


def _model_digest(options: argparse.Namespace) -> str:
    files = resolve(options.model)
    if options.vocabulary is not None:
        files += sorted(options.vocabulary.glob("vocab.*"))
    return _digest(files)


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _earlier_manifest(out: Path) -> set[str]:
    """The manifest and the page in a folder, if an earlier run wrote them."""
    try:
        rows = [json.loads(line) for line in (out / MANIFEST).read_text(encoding="utf-8").splitlines()]
        ours = bool(rows) and all(isinstance(row["line"], int) and ("files" in row or "failure" in row) for row in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {MANIFEST, PAGE} if ours else set()


def _finish(
    options: argparse.Namespace, rows: Sequence[Row], requests: Mapping[int, Request | str], earlier: set[str]
) -> int:
    """Write the manifest and the page, and report; returns the exit status."""
    out, failed = options.out, {row["line"] for row in rows if "failure" in row}
    prompts = {number: request.prompts for number, request in requests.items() if isinstance(request, Request)}
    with replacing(out, earlier, MANIFEST) as folder:
        manifest = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / MANIFEST).write_text(manifest, encoding="utf-8")
        (folder / PAGE).write_text(render_set(out, prompts, rows), encoding="utf-8", errors="replace")
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{len(requests) - len(failed)} of {len(requests)} lines have results: {out / MANIFEST} lists them.")
        print(f"Open {out / PAGE} for all results.")
    if failed:
        print_line(f"{len(failed)} of {len(requests)} lines failed: {out / MANIFEST} has the reasons.")
    return 1 if failed else 0
