"""Programs and commands in processes of their own, and in two at once under `accelerate launch`, on the CPU."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]

# With --cpu, accelerate starts a single process unless there is MPI.
_LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
_LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
_ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def run(*arguments):
    """One process of Python."""
    return _Started(*arguments).finish()


def launch(*arguments):
    """Two processes that know each other."""
    return _Started(*_LAUNCH, *arguments).finish()


def kill_one(*arguments, when):
    """Start two processes, and kill one of them, which cannot defend itself, as soon as `when` says so."""
    started = _Started(*_LAUNCH, *arguments)
    while not when():
        assert started.poll() is None, "all was done before one could be killed"
        time.sleep(0.01)
    children = psutil.Process(started.pid).children(recursive=True)
    ranks = [child for child in children if "LOCAL_RANK" in child.environ()]
    os.kill(next(rank.pid for rank in ranks if rank.environ()["LOCAL_RANK"] == "1"), signal.SIGKILL)
    return started.finish()


class _Started(subprocess.Popen):
    def __init__(self, *arguments):
        super().__init__(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, **_ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self):
        out, err = self.communicate(timeout=540)
        return subprocess.CompletedProcess(self.args, self.returncode, out, err)
