"""`codi generate --prompts` by two processes under `accelerate launch`, and after one of them was killed."""

import json
import re

import pytest
from launch import kill_one, launch, run
from tiny import FOUR, build, save

LINES = 8  # that succeed


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """The command, without --out. The last line fails."""
    folder = tmp_path_factory.mktemp("many")
    save(folder / "whole.safetensors", build(FOUR))
    lines = [{"text": "one star", "outputs": ["image", "audio"], "seed": i} for i in range(LINES)]
    lines += [{"image": "nowhere.png"}]
    (folder / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["-m", "codi_backend", "generate", "--prompts", folder / "p.jsonl"]
    return [*command, "--model", folder / "whole.safetensors", "--steps", "15", "--candidates", "1"]


@pytest.fixture(scope="module")
def one(arguments, tmp_path_factory):
    """The results of a single process."""
    out = tmp_path_factory.mktemp("one") / "out"
    done = run(*arguments, "--out", out)
    assert done.returncode == 1, done.stderr[-3000:]
    return out


def contents(out):
    """Every file but the records and pages of lines, which state times."""
    times = ("result.json", "index.html")
    files = [path for path in out.rglob("*") if path.is_file() and not (path.name in times and path.parent != out)]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def made(out):
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/result.json")}


def test_two_processes_give_what_one_gives(arguments, one, tmp_path):
    done = launch(*arguments, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert contents(tmp_path / "out") == contents(one) and len(made(one)) == LINES
    assert (
        len(re.findall(r"of 5 lines: line \d is finished", done.stderr)) == 4 + 1 - 1
    )  # lines 1, 3, 5, 7; and 9 fails
    assert len(re.findall(r"of 4 lines: line \d is finished", done.stderr)) == 4
    failure = f"Line 9 of {arguments[4]}: There is no file {arguments[4].with_name('nowhere.png')}."
    assert done.stderr.count(f"codi: {failure}\n") == 1
    assert done.stdout.count("lines have results") == 1


def test_a_killed_process_loses_one_line(arguments, one, tmp_path):
    out = tmp_path / "out"
    killed = kill_one(*arguments, "--out", out, when=lambda: len(made(out)) >= 3)
    assert killed.returncode != 0 and "Signal 9 (SIGKILL) received" in killed.stderr
    finished = made(out)
    reported = {f"{int(line):06d}" for line in re.findall(r"line (\d) is finished", killed.stderr)}
    assert 3 <= len(finished) < LINES and reported <= finished.keys()
    assert not (out / "manifest.jsonl").exists()
    again = run(*arguments, "--out", out)
    assert again.returncode == 1, again.stderr[-3000:]
    kept = {f"{int(line):06d}" for line in re.findall(r"line (\d) was finished earlier", again.stderr)}
    assert kept == finished.keys() and {name: made(out)[name] for name in finished} == finished
    assert contents(out) == contents(one)


def test_several_processes_are_for_lines(tmp_path):
    done = launch("-m", "codi_backend", "generate", "--text", "one star", "--out", tmp_path / "out")
    assert "codi: Several processes share the lines of a file: give one with --prompts" in done.stderr
    assert done.returncode == 1 and not (tmp_path / "out").exists()
