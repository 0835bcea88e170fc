"""The folder that a command writes to: checked first, changed as a whole."""

import contextlib
import os

import pytest

from codi_backend.media.output_folder import check_folder, check_names, replacing


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture
def out(tmp_path):
    """A folder with two results of an earlier run and a file of someone else."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b", "own"):
        (folder / name).write_text(f"old {name}")
    return folder


@pytest.mark.parametrize("name", ["out", "deep/er/out"])
def test_a_folder_that_can_be_written(tmp_path, name):
    check_folder(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name, blamed in (("file", "file"), ("file/x", "file"), ("file/x/y", "file"), ("link", "link")):
        with pytest.raises(ValueError, match=rf"{blamed} is a file, not a folder: choose another folder with --out\."):
            check_folder(tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_name_that_no_disk_takes(tmp_path):
    with pytest.raises(ValueError, match=r"Nothing can be written into .*x \(.+\): choose another folder"):
        check_folder(tmp_path / ("x" * 5000))


def test_too_little_space(tmp_path):
    with pytest.raises(ValueError, match=r"The files take 1000000000\.00 GB, and [\d.]+ GB are free in .*: make room"):
        check_folder(tmp_path, needed=10**18)


def test_what_was_there_is_replaced_as_a_whole(out):
    with replacing(out, ["a", "b", "gone"]) as folder:
        (folder / "b").write_text("new b")
        (folder / "c").write_text("new c")
        assert (out / "a").read_text() == "old a" and (out / "b").read_text() == "old b"
    assert contents(out) == {"b": "new b", "c": "new c", "own": "old own"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), ValueError("no")])
def test_after_an_error_all_is_as_before(out, error):
    before = contents(out)
    with pytest.raises(BaseException) as raised, replacing(out, ["a", "b"]) as folder:
        (folder / "b").write_text("new b")
        raise error
    assert raised.value is error or raised.type is error
    assert contents(out) == before


@pytest.mark.parametrize("at", range(5))
def test_an_error_between_two_files_is_undone(out, at, monkeypatch):
    before, real, calls = contents(out), os.replace, []

    def replace(source, target):
        calls.append(source)
        if len(calls) == at + 1:
            raise PermissionError(13, "Permission denied")
        real(source, target)

    with pytest.raises(PermissionError), replacing(out, ["a", "b"]) as folder:
        for name in "abc":
            (folder / name).write_text(f"new {name}")
        monkeypatch.setattr("codi_backend.media.output_folder.os.replace", replace)
    assert contents(out) == before


def test_a_folder_is_made_only_for_results(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError), replacing(out):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with replacing(out) as folder:
        (folder / "a").write_text("new")
    assert contents(out) == {"a": "new"}


def test_a_folder_of_that_name_is_no_result(out):
    (out / "c").mkdir()
    with pytest.raises(ValueError, match="c is a folder where a file is to be written"), replacing(out) as folder:
        (folder / "a").write_text("new")
        (folder / "c").write_text("new")
    assert (out / "a").read_text() == "old a" and {p.name for p in out.iterdir()} == {"a", "b", "c", "own"}


def test_nothing_of_others_is_replaced(out):
    check_names(out, ["a", "new"], {"a", "b"}, [out / "b", "elsewhere"])
    with pytest.raises(ValueError, match=r"own exists and is no result of an earlier run: move it away"):
        check_names(out, ["a", "own"], {"a", "b"}, [])
    with pytest.raises(ValueError, match=r"a is read by this run, whose result would replace it: choose another"):
        check_names(out, ["a"], {"a", "b"}, [f"{out}/../out/a"])


@pytest.mark.parametrize("moves", range(1, 8))
def test_a_killed_process_leaves_no_file_that_is_not_listed(out, moves, monkeypatch):
    """The record `b` goes last and comes first; `a`, `c` and `z` are the files that it lists."""
    (out / "c").write_text("old c")

    class Killed(BaseException):
        pass

    real, calls = os.replace, []

    def replace(source, target):
        calls.append(source)
        if len(calls) > moves:  # nothing is undone by a process that is dead
            raise Killed
        real(source, target)

    with contextlib.suppress(Killed), replacing(out, ["a", "b", "c"], "b") as folder:
        for name in "abz":
            (folder / name).write_text(f"new {name}")
        monkeypatch.setattr("codi_backend.media.output_folder.os.replace", replace)
    found = {name: text for name, text in contents_of_files(out).items() if name != "own"}
    if "b" not in found:
        assert not found
    age = found.get("b", "").split()[:1]
    assert all(text.split()[:1] == age for text in found.values())


def contents_of_files(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
