"""The pack as the registry distributes it, in an empty ComfyUI that has the requirements but torchaudio."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from distribution import REPOSITORY, distributed_files


@pytest.fixture(scope="module")
def installed(comfyui, tmp_path_factory):
    """What happened when the distributed files were loaded and ran a workflow; see `as_installed`."""
    files = distributed_files()
    if files is None:
        pytest.skip("not a git checkout")
    pack, base = tmp_path_factory.mktemp("pack"), tmp_path_factory.mktemp("base")
    for name in files:
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, pack / name)
    script = Path(__file__).with_name("as_installed.py")
    done = subprocess.run(
        [sys.executable, str(script), str(comfyui), str(pack), str(base)],
        cwd=base,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((base / "result.json").read_text())


def test_requirements_are_all_it_takes(installed):
    assert {"accelerate", "matplotlib", "pytest"} <= set(installed["hidden"]), "this environment shows nothing"
    assert "torchaudio" in installed["hidden"] or find_spec("torchaudio") is None
    assert installed["outputs"] == ["audio", "images"]


def test_heavy_imports_wait_until_a_node_runs(installed):
    # ComfyUI has already imported torch, transformers and the like; diffusers and open_clip take seconds.
    assert installed["imported"] == []
