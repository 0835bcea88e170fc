"""Whatever the command is given, it succeeds or prints one sentence; nothing is lost in its output folder."""

import contextlib
import io
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import build, save

from codi_backend.cli import main as cli
from codi_backend.cli.arguments import prompt
from codi_backend.media.output_folder import replacing

ODD = st.text(max_size=12)
NUMBERS = st.one_of(
    st.integers(-3, 3).map(str),
    st.sampled_from(["0.5", "1e9", "-1e9", "1e400", "nan", "inf", "-inf", "", " ", "0x1", "1_000", "10" * 20]),
)
# A random network is good for numbers like these; larger ones are for the tests of numbers.
SCALES = st.sampled_from(["0", "0.5", "1", "3", "-1", "nan", "inf", "much"])
NAMES = st.sampled_from(["image", "audio", "text", "video", "smell", "", "Image"])
FILES = st.one_of(
    st.sampled_from(["{}/a.png", "{}/é b:c.png", "{}/folder", "{}/note.txt", "{}/no", "-x", "{}/empty"]), ODD
)


def option(name, values):
    return values.map(lambda value: [f"--{name}={value}"])


GENERATE = st.lists(
    st.one_of(
        option(
            "text", st.one_of(st.text(max_size=40), st.sampled_from(["a:0.5", "a:-1", "a:0", ":", " " * 9, "x " * 200]))
        ),
        option("image", st.builds("{}{}".format, FILES, st.sampled_from(["", ":0.5", ":0", ":x", ":-2"]))),
        option("hold", st.builds("{}={}".format, NAMES, FILES)),
        option("interpolation", st.sampled_from(["linear", "slerp", "", "cubic"])),
        st.lists(NAMES, min_size=1, max_size=3).map(lambda names: ["--outputs", *names]),
        option("focus", SCALES),
        option("fidelity", SCALES),
        option("count", st.sampled_from(["1", "2", "0", "-1", "9" * 12, "x"])),
        option("seed", NUMBERS),
        option("steps", st.sampled_from(["1", "2", "0", "-1", "1001", "9" * 20, "x"])),
        option("guidance", SCALES),
        option("sampler", st.sampled_from(["ddim", "euler", "dpmpp_2m", "", "heun"])),
        option("alignment", st.sampled_from(["paper", "none", "released", "", "loud"])),
        option("strength", SCALES),
        option("alignment-scale", SCALES),
        option("candidates", st.sampled_from(["1", "2", "0", "99", "x"])),
        option("device", st.sampled_from(["cpu", "meta", "toaster", "", "cuda:99", "cpu:-1"])),
        option("out", st.one_of(st.sampled_from(["{}/out", "{}/note.txt", "{}/note.txt/x", "{}/folder", ""]))),
        st.just(["--json"]),
        ODD.map(lambda word: [word]),
    ),
    max_size=5,
).map(lambda groups: [argument for group in groups for argument in group])
OTHERS = st.one_of(
    st.builds(lambda files: ["inspect", *files], st.lists(FILES, max_size=3)),
    st.builds(lambda files, out: ["convert", *files, "--out", out], st.lists(FILES, max_size=2), FILES),
    st.builds(lambda run, out: ["pack", f"--run={run}", f"--out={out}"], FILES, st.just("{}/packed")),
    st.builds(
        lambda n, s: ["dataset", "preview", f"--count={n}", f"--seed={s}", "--out={}/note.txt"], NUMBERS, NUMBERS
    ),
    st.builds(
        lambda stage, name, n: ["train", stage, f"--{name}={n}", "--out={}/note.txt"],
        st.sampled_from(["autoencoder_image", "x", ""]),
        st.sampled_from(["steps", "batch-size", "learning-rate", "seed", "threads", "workers", "micro-batches"]),
        NUMBERS,
    ),
    st.builds(
        lambda name, n: ["evaluate", f"--{name}={n}", "--runs", "no run", "--out={}/judged"],
        st.sampled_from(["samples", "clips", "seed", "steps", "guidance", "candidates", "threads"]),
        NUMBERS,
    ),
    st.lists(ODD, max_size=3),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model") / "tiny.safetensors", build())


def run(arguments, folder):
    """Exit status, stdout and stderr of the command; ``{}`` in an argument is the folder."""
    Image.new("RGB", (9, 7), "red").save(folder / "a.png")
    Image.new("RGB", (9, 7), "red").save(folder / "é b:c.png")
    (folder / "folder").mkdir()
    (folder / "note.txt").write_text("mine")
    (folder / "empty").touch()
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    here = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            status = cli.main([argument.replace("{}", str(folder)) for argument in arguments])
    except SystemExit as stopped:
        status = stopped.code
    finally:
        os.chdir(here)
    return status, *(stream.buffer.getvalue().decode() for stream in streams if not stream.flush())


def check(status, out, err, folder):
    lines = [line for line in err.splitlines() if not line.startswith(("codi: hint: ", "denoising", "\r"))]
    if status == 1:
        assert len(lines) == 1 and re.fullmatch(r"codi: .+", lines[0]), err
    elif status == 2:
        assert lines[0].startswith("usage: codi") and "error: " in err and "Traceback" not in err
    else:
        assert status == 0 and lines == [], err
    assert (folder / "note.txt").read_text() == "mine"
    assert not list(folder.glob("**/.codi-*")), "something temporary was left"


@pytest.mark.property
@given(GENERATE)
def test_generate(model, arguments):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        usual = ["--model", str(model), "--steps", "1", "--outputs", "image", "--out", str(folder / "out")]
        status, out, err = run(["generate", *usual, *arguments], folder)
        check(status, out, err, folder)
        made = [path for path in (folder / "out", folder / "folder") if (path / "result.json").exists()]
        assert bool(made) == (status == 0 and "usage: codi" not in out)


@pytest.mark.property
@given(OTHERS)
def test_other_commands(arguments):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        status, out, err = run(arguments, folder)
        if arguments[:1] == ["inspect"] and status == 1 and out:  # what is wrong is among the findings
            assert err == "" and "Traceback" not in out
        else:
            check(status, out, err, folder)


@pytest.mark.property
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.floats(0, 1e6).map(lambda x: f"{x:.3f}"))
def test_a_weight_is_taken_from_the_end_of_a_text(text, weight):
    name, content, found = prompt("text", f"{text}:{weight}")
    if text[-1:].isdigit():  # a time or a ratio
        assert (content, found) == (f"{text}:{weight}", 1.0)
    else:
        assert (content, found) == (text, float(weight))
    assert name == "text" and prompt("text", text)[1] in (text, text.rpartition(":")[0])


FILENAMES = st.sampled_from(["a", "b", "c", "d"])


@pytest.mark.property
@given(st.sets(FILENAMES), st.sets(FILENAMES), st.sets(FILENAMES), st.booleans())
def test_a_folder_holds_the_old_files_or_the_new_ones(old, new, earlier, fails):
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        for file in old:
            (out / file).write_text("old")
        with contextlib.suppress(ZeroDivisionError), replacing(out, earlier) as folder:
            for file in new:
                (folder / file).write_text("new")
            if fails:
                raise ZeroDivisionError
        kept = dict.fromkeys(old if fails else old - earlier, "old")
        assert {path.name: path.read_text() for path in out.iterdir()} == kept | dict.fromkeys(
            () if fails else new, "new"
        )
