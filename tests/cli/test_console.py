"""The command in pipes, on terminals without UTF-8, and when it is interrupted."""

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codi_backend.cli import console
from codi_backend.cli.main import main

ROOT = Path(__file__).parents[2]


def start(*arguments, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | options.pop("env", {})
    command = [sys.executable, "-m", "codi_backend", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, **options)


def test_a_reader_that_has_enough():
    reading, writing = os.pipe()
    ran = start("inspect", "mini", stdout=writing)
    os.close(writing)
    os.close(reading)
    _, err = ran.communicate(timeout=120)
    assert (ran.returncode, err) == (141, b"")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_without_the_letters(tmp_path, checkpoint, encoding, monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    out = tmp_path / "\u2605"
    assert main(["generate", "--steps", "1", "--outputs", "image", "--model", str(checkpoint), "--out", str(out)]) == 0
    assert main(["generate", "--image", str(out / "no"), "--model", str(checkpoint), "--out", str(out)]) == 1
    shown = [stream.buffer.getvalue().decode(encoding) for stream in streams.values() if not stream.flush()]
    star = "\u2605" if encoding == "utf-8" else "\\u2605"
    assert f"{star}/image.png." in shown[0] and f"{star}/no" in shown[1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_ctrl_c(tmp_path, checkpoint):
    out = tmp_path / "out"
    options = ["--steps", "1000", "--outputs", "audio", "--model", str(checkpoint), "--out", str(out)]

    def heed_signals():  # a shell's background job begins with SIGINT ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    ran = start("generate", *options, stdout=subprocess.PIPE, preexec_fn=heed_signals)
    shown = b""
    while b"denoising" not in shown:  # the bar comes when the model is at work
        shown += ran.stderr.read(1)
    ran.send_signal(signal.SIGINT)
    printed, err = ran.communicate(timeout=120)
    assert (ran.returncode, printed) == (130, b""), err.decode()
    assert not out.exists() and b"Traceback" not in err and err.endswith(b"codi: interrupted\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb\tc\x1b[2J"), r"codi: a\\nb\\tc\\x1b\[2J"),
        (
            OSError(28, "No space left on device", "out/a.png"),
            r"codi: out/a\.png cannot be .+ \(No space left .+\): .+\.",
        ),
        (OSError(28, "No space left on device"), r"codi: A file cannot be read or written \(No space left .+\): .+\."),
        (OSError("Ours."), r"codi: Ours\."),
        (MemoryError(), r"codi: There is not enough memory for this: .+\."),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
            r"codi: There is not enough memory for this: .+\.",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: ..."),
            r"codi: There is not enough .+\.",
        ),
    ],
)
def test_an_error_is_one_line(monkeypatch, capsys, tmp_path, error, line):
    def fail(*_):
        raise error

    monkeypatch.setattr("codi_backend.data.preview.write_preview", fail)
    assert main(["dataset", "preview", "--out", str(tmp_path / "p")]) == 1
    assert re.fullmatch(line + r"\n", capsys.readouterr().err)


def test_what_only_a_programmer_can_mend_keeps_its_traceback():
    assert console.error_message(RuntimeError("size mismatch")) is None and console.error_message(KeyError("x")) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--out", ""],
        ["generate", "--out", "a\nb"],
        ["generate", "--text", "a \udcff star"],
        ["generate", "--image", ""],
        ["generate", "--hold", "image="],
        ["generate", "--model", ""],
        ["train", "vocoder", "--data", ""],
        ["inspect", ""],
    ],
)
def test_what_is_no_name_or_text(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert re.search(
        r"error: argument .+: .+ (is not a (file|folder) name|is not valid UTF-8|is not MODALITY)",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["dataset", "preview", "--seed", "-1", "--out", "p"],
            "seed: -1 is out of range; choose a whole",
        ),
        (["dataset", "preview", "--count", "1000000", "--out", "p"], "choose 1 to 1000"),
        (
            ["generate", "--count", "1000000000", "--out", "p"],
            "--count: 1000000000 is out of range; choose .* to 10000",
        ),
        (
            ["similarity", "--count", "1000000000"],
            "--count: 1000000000 is out of range; choose .* to 10000",
        ),
        (["train", "autoencoder_image", "--out", "p", "--steps", "0"], "Training of 0 steps is not possible"),
        (["train", "autoencoder_image", "--out", "p", "--batch-size", "-1"], "Training of -1 samples a step"),
        (["train", "autoencoder_image", "--out", "p", "--learning-rate", "nan"], "A learning rate of nan"),
        (["train", "autoencoder_image", "--out", "p", "--seed", str(10**30)], "seed: about 2\\*\\*100 is out of range"),
        (["train", "autoencoder_image", "--out", "p", "--workers", "-1"], "choose 0 or more workers"),
        (["train", "autoencoder_image", "--out", "p", "--sample-every", "-1"], "choose 0, for none, or more"),
        (["train", "autoencoder_image", "--out", "p", "--threads", "0"], "--threads 0 is out of range"),
        *(
            (
                ["generate", "--device", device, "--out", "p"],
                rf"The device {device} cannot be used \(.+\): choose another",
            )
            for device in ("meta", "hpu", "lazy", "cuda:99", "0", "")
        ),
        *(
            ([*command, "--out", "file"], "file is a file, not a folder: choose another folder with --out")
            for command in (
                *(
                    ["generate"],
                    ["dataset", "preview"],
                    ["train", "all"],
                    ["train", "vocoder", "--data", "x"],
                    ["pack"],
                ),
                *(["evaluate"], ["similarity"], ["download"], ["convert", "mini"]),
            )
        ),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and re.fullmatch(rf"codi: .*{message}.*\n", printed.err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "precious"
