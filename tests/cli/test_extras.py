"""A module that is not installed: one sentence with the command to type, before any work is done."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codi_backend.cli.main import main

AV_ALIGN = r'"\.\[av-align\]"'
STANDALONE, TRAIN, CORE = r'"\.\[standalone\]"', r'"\.\[train\]"', r"\."
GENERATE = ["generate", "--out", "{out}"]
CASES = [
    *((GENERATE, module, STANDALONE) for module in ("torch", "numpy", "PIL", "safetensors", "tqdm", "torchvision")),
    *((GENERATE, module, CORE) for module in ("diffusers", "open_clip")),
    ([*GENERATE, "--outputs", "video"], "av", STANDALONE),
    ([*GENERATE, "--audio", "a.wav", "--outputs", "image"], "av", STANDALONE),
    ([*GENERATE, "--hold", "video=a.mp4", "--outputs", "image"], "av", STANDALONE),
    *(
        (["train", stage, "--out", "{out}", *more], module, TRAIN)
        for stage, more in (("autoencoder_image", []), ("vocoder", ["--data", "{out}"]))
        for module in ("accelerate", "tensorboard", "matplotlib")
    ),
    *((["evaluate", "--out", "{out}"], module, TRAIN) for module in ("scipy", "matplotlib")),
    (["similarity", "--out", "{out}"], "scipy", TRAIN),
    (["similarity", "--video", "a.mp4"], "av", STANDALONE),
    (["similarity", "--av-align", "a.mp4"], "cv2", AV_ALIGN),
    (["pack", "--out", "{out}"], "diffusers", CORE),
    (["dataset", "preview", "--out", "{out}"], "PIL", STANDALONE),
    (["inspect", "mini"], "safetensors", STANDALONE),
    (["convert", "mini", "--out", "{out}"], "torch", STANDALONE),
    (["download", "--out", "{out}"], "torch", STANDALONE),
]
NAMES = {"PIL": "pillow", "open_clip": "open_clip_torch", "cv2": "opencv-python-headless"}


@pytest.mark.parametrize(("command", "module", "what"), CASES)
def test_a_module_that_is_not_there(tmp_path, monkeypatch, capsys, command, module, what):
    monkeypatch.setitem(sys.modules, module, None)  # as the import system marks what cannot be imported
    assert main([part.format(out=tmp_path / "out") for part in command]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and not (tmp_path / "out").exists()
    assert re.fullmatch(
        rf"codi: {NAMES.get(module, module)} is not installed: type pip install -e {what} in the folder of .+\.\n",
        printed.err,
    )


def test_a_module_that_another_needs(monkeypatch, capsys, tmp_path):
    """What no list names is found out when it is imported."""
    monkeypatch.setattr("codi_backend.cli.dataset.require", lambda *_: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    def preview(*_):
        import matplotlib  # noqa: F401

    monkeypatch.setattr("codi_backend.data.preview.write_preview", preview)
    assert main(["dataset", "preview", "--out", str(tmp_path / "out")]) == 1
    assert re.fullmatch(rf"codi: matplotlib is not installed: type pip install -e {TRAIN}.+\n", capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [["generate"], ["--help"]])
def test_an_interpreter_without_torch(arguments, tmp_path):
    script = "import runpy, sys; sys.modules['torch'] = sys.modules['numpy'] = None; "
    script += "runpy.run_module('codi_backend', run_name='__main__', alter_sys=True)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    if arguments == ["--help"]:
        assert ran.returncode == 0 and "usage: codi" in ran.stdout
    else:
        line = rf"codi: torch is not installed: type pip install -e {STANDALONE} in the folder of CoDi any-to-any\.\n"
        assert ran.returncode == 1 and re.fullmatch(line, ran.stderr)
