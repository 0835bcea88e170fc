"""`codi download`, from a hub on this machine."""

import dataclasses
import re
import shutil
import socket
import sys
from collections import namedtuple

import pytest
from hub import COMMIT, REPOSITORY, Hub

from codi_backend.checkpoints import codi as published
from codi_backend.checkpoints import download as module
from codi_backend.checkpoints.download import download, find
from codi_backend.cli.main import main

constants = pytest.importorskip("huggingface_hub.constants")

NAMES = sorted(set(published.FILES.values()))
ENCODERS, AUDIO = "CoDi_encoders.pth", "CoDi_audio_diffuser_m.pth"
CONTENT = bytes(range(256)) * 400
CODI = module.REPOSITORIES["codi"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with all editions, the first one in part; it stands for the real one everywhere."""
    folders = {"": b"now", "checkpoints_fp16/": b"half", "deprecated_checkpoints/": b"old"}
    files = {f"{folder}{name}": CONTENT + mark for folder, mark in folders.items() for name in NAMES}
    del files["deprecated_checkpoints/CoDi_encoders.pth"]
    with Hub({**files, "README.md": b"hello", f"more/{ENCODERS}": b"deeper"}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "agents.json"), raising=False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
        monkeypatch.setitem(module.REPOSITORIES, "codi", dataclasses.replace(CODI, sizes={}))
        yield hub


@pytest.fixture
def out(tmp_path):
    return tmp_path / "deep" / "out"


@pytest.fixture
def broken(hub, monkeypatch):
    """Let the connection break for good in the middle of a file, and return how to mend it."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.cuts = [1000] + [0] * 20
    return lambda: hub.cuts.clear()


@pytest.mark.parametrize(("edition", "mark"), [("current", b"now"), ("fp16", b"half")])
def test_an_edition(hub, out, capsys, edition, mark):
    assert main(["download", "--edition", edition, "--out", str(out), "--yes"]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == dict.fromkeys(NAMES, CONTENT + mark)
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[:4]} == set(NAMES) and "0.00 GB" in lines[0]
    assert re.match(r"To fetch: 0.00 GB; free in .*out: \d+\.\d\d GB.", lines[4])
    assert lines[5:] == [str(out / line.split()[0]) for line in lines[:4]]


def test_files_by_name(hub, out):
    assert download(out, "first", [AUDIO]) == [out / AUDIO]
    assert (out / AUDIO).read_bytes() == CONTENT + b"old"
    assert hub.fetched() == [(AUDIO, None)]


def test_what_is_fetched_belongs_to_one_commit(hub, out):
    download(out, only=[ENCODERS])
    assert f"/{REPOSITORY}/resolve/{COMMIT}/{ENCODERS}" in [path for path, _ in hub.asked]


def test_what_is_there_is_not_fetched_again(hub, out):
    download(out)
    hub.asked.clear()
    assert len(download(out, confirmed=lambda: pytest.fail("asked for nothing"))) == 4
    assert not hub.fetched()


def test_a_cut_connection_is_taken_up(hub, out, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.cuts = [1000]
    download(out, only=[AUDIO])
    assert (out / AUDIO).read_bytes() == CONTENT + b"now"
    assert hub.fetched() == [(AUDIO, None), (AUDIO, "bytes=1000-")]


def test_an_interrupted_download_goes_on_where_it_stopped(hub, out, broken, capsys):
    assert main(["download", "--only", AUDIO, "--out", str(out), "--yes"]) == 1
    assert re.search(rf"^codi: {AUDIO} was not fetched completely; run .*\n\Z", capsys.readouterr().err, re.M)
    [partial] = out.iterdir()
    assert partial.stat().st_size == 1000
    broken()
    hub.asked.clear()
    download(out, only=[AUDIO])
    assert hub.fetched() == [(AUDIO, "bytes=1000-")]
    assert [path.read_bytes() for path in out.iterdir()] == [CONTENT + b"now"]


def test_another_version_begins_anew(hub, out, broken):
    with pytest.raises(OSError, match="not fetched completely"):
        download(out, only=[AUDIO])
    broken()
    hub.files[AUDIO] = b"new" + CONTENT
    download(out, only=[AUDIO])
    assert (out / AUDIO).read_bytes() == b"new" + CONTENT


def test_a_server_that_cannot_begin_in_the_middle(hub, out, broken):
    with pytest.raises(OSError, match="not fetched completely"):
        download(out, only=[AUDIO])
    broken()
    hub.ranges = False
    download(out, only=[AUDIO])
    assert (out / AUDIO).read_bytes() == CONTENT + b"now"


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_wrong_size(hub, out, difference):
    hub.sizes[AUDIO] = len(hub.files[AUDIO]) + difference
    with pytest.raises(ValueError, match=f"arrived with {len(hub.files[AUDIO])} bytes instead of"):
        download(out, only=[AUDIO])
    assert not list(out.iterdir())


def test_another_file_of_that_name_stays(hub, out):
    out.mkdir(parents=True)
    (out / AUDIO).write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"{AUDIO} has 4 bytes instead of .*: move it away"):
        download(out, only=[AUDIO])
    assert (out / AUDIO).read_bytes() == b"mine"


def test_a_size_that_is_not_the_known_one_is_reported(hub, out, monkeypatch):
    size = len(hub.files[AUDIO])
    sizes = {"current": {AUDIO: {1, size}, ENCODERS: {1}}}
    monkeypatch.setitem(module.REPOSITORIES, "codi", dataclasses.replace(CODI, sizes=sizes))
    lines = []
    download(out, only=[AUDIO, ENCODERS], report=lines.append)
    assert "2023" not in lines[0] and "its size has changed since 2023" in lines[1]


def test_a_full_disk(hub, out, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 0, 100))
    with pytest.raises(OSError, match="0.00 GB do not fit in .*out"):
        download(out, only=[AUDIO])
    assert not out.exists() and not hub.fetched()


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("", 1), ("no", 1)])
def test_a_person_is_asked(hub, out, monkeypatch, capsys, answer, status):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert main(["download", "--only", AUDIO, "--out", str(out)]) == status
    assert (out / AUDIO).exists() == (status == 0)
    assert ("codi: Nothing was fetched.\n" in capsys.readouterr().err) == (status == 1)


def test_nobody_to_ask(hub, out, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["download", "--out", str(out)]) == 1
    assert "confirm with --yes" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--edition", "last"], "no edition 'last'; choose from current, fp16, first"),
        (["--only", "CoDi_smell.pth"], "current edition in ZinengTang/CoDi has no CoDi_smell.pth; it has CoDi_"),
        (["--edition", "first"], "first edition in ZinengTang/CoDi has no CoDi_encoders.pth; it has CoDi_"),
    ],
)
def test_mistakes_are_one_line(hub, out, capsys, arguments, message):
    assert main(["download", "--out", str(out), "--yes", *arguments]) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(r"codi: .+\n", captured.err) and message in captured.err
    assert captured.out == "" and not out.exists()


def test_no_network(hub, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(OSError, match=rf"could not be listed at {url} \(.*\)\.$") as error:
            find("current", endpoint=url)
    assert "\n" not in str(error.value)


def test_offline_mode(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="could not be listed at .*offline mode"):
        find("current")


def test_no_such_repository(hub, monkeypatch):
    monkeypatch.setitem(module.REPOSITORIES, "codi", dataclasses.replace(CODI, name="ZinengTang/Gone"))
    with pytest.raises(OSError, match="files of ZinengTang/Gone could not be listed .*404"):
        find("current")


def test_without_huggingface_hub(out, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="huggingface_hub is not installed: pip install huggingface_hub"):
        download(out)


def test_known_sizes_are_those_of_files_that_parts_name():
    assert CODI.name == REPOSITORY and CODI.sizes.keys() == set(module.EDITIONS)
    assert {name for sizes in CODI.sizes.values() for name in sizes} <= set(NAMES)


@pytest.mark.parametrize(("edition", "mark"), [("current", ""), ("fp16", "-fp16"), ("first", "-deprecated")])
def test_versatile_diffusion(hub, out, edition, mark):
    """Its editions differ by the name of one file and share the others."""
    every = [f"vd-four-flow-v1-0{mark}.pth" for mark in ("", "-fp16", "-deprecated")] + ["kl-f8.pth", "optimus-vae.pth"]
    hub.repository = module.REPOSITORIES["versatile"].name
    hub.files = {f"pretrained_pth/{name}": CONTENT + name.encode() for name in every}
    assert main(["download", "--model", "versatile", "--edition", edition, "--out", str(out), "--yes"]) == 0
    fetched = {path.name: path.read_bytes() for path in out.iterdir()}
    names = [f"vd-four-flow-v1-0{mark}.pth", "kl-f8.pth", "optimus-vae.pth"]
    assert fetched == {name: CONTENT + name.encode() for name in names}


def test_no_such_model(hub, out):
    with pytest.raises(ValueError, match="There is no model 'dalle'; choose from codi, versatile"):
        download(out, model="dalle")
