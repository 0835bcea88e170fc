"""`codi evaluate` by two processes under `accelerate launch`, and after one of them was killed."""

import re

import pytest
from launch import kill_one, launch, run

RUNS = ["coupling_image_audio", "fidelity_text"]


@pytest.fixture(scope="module")
def arguments(checkpoint):
    """The command, without --out: 3 batches of the one run, 2 of the other."""
    command = ["-m", "codi_backend", "evaluate", "--model", checkpoint, "--samples", "25", "--steps", "2"]
    return [*command, "--runs", *RUNS]


@pytest.fixture(scope="module")
def one(arguments, tmp_path_factory):
    """The results of a single process."""
    out = tmp_path_factory.mktemp("one") / "out"
    done = run(*arguments, "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    return contents(out)


def contents(out):
    """Tables and judged results."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.suffix in (".json", ".md")}


def test_two_processes_give_what_one_gives(arguments, one, tmp_path):
    done = launch(*arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path / "out") == one
    assert one.keys() == {"evaluation.json", "evaluation.md", *(f"runs/{name}.json" for name in RUNS)}
    assert sorted(re.findall(r"(\w+): \d+ of \d+ prompts", done.stderr)) == [RUNS[0]] * 3 + [RUNS[1]] * 2
    assert done.stdout.count("# Evaluation") == 1


def test_a_killed_process_loses_one_batch(arguments, one, tmp_path):
    out = tmp_path / "out"

    def batches():
        return {f"{p.parent.name} {int(p.stem)}": p.stat().st_mtime_ns for p in out.glob("runs/*/*.json")}

    killed = kill_one(*arguments, "--out", out, when=lambda: len(batches()) >= 2)
    assert killed.returncode != 0 and "Signal 9 (SIGKILL) received" in killed.stderr
    done = len(batches())
    assert 2 <= done < 5 and done >= len(re.findall(r"of \d+ prompts", killed.stderr))
    assert not (out / "evaluation.md").exists()
    again = run(*arguments, "--out", out)
    assert again.returncode == 0, again.stderr[-3000:]
    assert len(re.findall(r"of \d+ prompts", again.stderr)) == 5 - done
    assert contents(out) == one
