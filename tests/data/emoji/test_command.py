"""`codi dataset emoji`: what is fetched, asked and refused, with stand-ins for the registries' programs."""

import json
import shutil
import sys
from pathlib import Path

import emoji_packages
import pytest

from codi_backend.cli.main import main
from codi_backend.data.emoji import packages

pytest.importorskip("resvg_py")


@pytest.fixture
def out(tmp_path, registry):
    (registry / "fetched.txt").unlink(missing_ok=True)
    return tmp_path / "out"


@pytest.fixture
def emoji(out, capsys):
    """Run the command; returns its status and what it printed on stdout and stderr."""

    def run(*arguments, only=("images",)):
        status = main(["dataset", "emoji", "--out", str(out), "--only", *only, *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def fetched(registry):
    log = registry / "fetched.txt"
    return log.read_text().split() if log.exists() else []


def names_of(kind):
    return [package.name for package in packages.PACKAGES if kind in package.kinds]


def test_nothing_is_fetched_without_consent(emoji, out, registry):
    status, printed, error = emoji()
    assert status == 1 and "Repeat the command with --yes" in error and error.count("\n") == 1
    for name in names_of("images"):
        assert name in printed
    assert "@lobehub/fluent-emoji-anim-1" not in printed
    assert not fetched(registry) and not out.exists()


@pytest.mark.parametrize(("answer", "agreed"), [("y", True), ("Yes", True), ("n", False), ("", False)])
def test_the_question(emoji, out, registry, monkeypatch, answer, agreed):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    status, *_ = emoji(only=("samples",))
    assert status == 0 and bool(fetched(registry)) == agreed and (out / "metadata.csv").exists() == agreed


def test_images(emoji, out, registry):
    status, printed, error = emoji("--yes")
    assert status == 0 and fetched(registry) == names_of("images")
    assert "image" in printed and "train" in printed and str(out / "index.html") in printed
    assert "fetching @iconify-json/noto 1.2.9" in error
    assert {path.name for path in (out / ".packages").iterdir()} == {
        package.file for package in packages.PACKAGES if "images" in package.kinds
    }


def test_what_is_there_is_not_fetched_again(emoji, out, registry):
    assert emoji("--yes")[0] == 0
    count = len(fetched(registry))
    assert emoji()[0] == 0  # nothing to ask
    broken = out / ".packages" / next(p.file for p in packages.PACKAGES if p.name == "@iconify-json/noto")
    broken.write_bytes(broken.read_bytes()[:-9])
    assert emoji("--yes")[0] == 0
    assert fetched(registry)[count:] == ["@iconify-json/noto"]


def test_going_on_after_a_failure(emoji, out, registry, tmp_path):
    package = next(p for p in packages.PACKAGES if p.name == "@iconify-json/twemoji")
    shutil.move(registry / package.file, tmp_path / "away")
    try:
        status, _, error = emoji("--yes")
    finally:
        shutil.move(tmp_path / "away", registry / package.file)
    assert status == 1 and not (out / "metadata.csv").exists()
    last = error.splitlines()[-1]
    assert last.startswith("codi: npm could not fetch @iconify-json/twemoji 1.2.5 (no route to the registry): ")
    first = fetched(registry)
    assert emoji("--yes")[0] == 0
    assert fetched(registry)[len(first) :] == names_of("images")[first.index("@iconify-json/twemoji") :]
    assert not list((out / ".packages").glob(".fetching*"))


def test_another_content(emoji, out, registry, monkeypatch):
    import dataclasses

    changed = [dataclasses.replace(p, sha256="0" * 64) if "samples" in p.kinds else p for p in packages.PACKAGES]
    monkeypatch.setattr(packages, "PACKAGES", changed)
    status, _, error = emoji("--yes", only=("samples",))
    assert status == 1 and "supersonic-scsynth-samples has another content than version 0.84.2" in error
    assert not (out / "samples").exists()


def test_programs_that_are_missing(emoji, out, monkeypatch, tmp_path):
    pytest.importorskip("tinysoundfont")
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, error = emoji("--yes", only=("images", "instruments", "speech"))
    assert status == 1 and error.count("\n") == 1 and not out.exists()
    for words in ("npm is not installed", "FluidR3_GM.sf2", "espeak-ng is not installed", "--only"):
        assert words in error


@pytest.mark.parametrize(("kind", "module"), [("images", "resvg_py"), ("instruments", "tinysoundfont")])
def test_modules_that_are_missing(emoji, out, monkeypatch, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    status, _, error = emoji("--yes", only=(kind,))
    what = "pip install -e" if module == "resvg_py" else "pip install --no-deps tinysoundfont"
    assert status == 1 and what in error and not out.exists()


def test_espeak_that_fails(emoji, out, registry, tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    emoji_packages.write_clients(programs, registry)
    (programs / "espeak-ng").write_text("#!/bin/sh\necho no such voice >&2\nexit 1\n")
    monkeypatch.setenv("PATH", str(programs))
    status, _, error = emoji("--yes", only=("speech",))
    assert status == 1 and "espeak-ng did not say 'red apple'" in error and "(no such voice)" in error


@pytest.mark.parametrize(
    ("arguments", "what"),
    [(["--only", "pictures"], "There is no kind 'pictures'"), (["--size", "100"], "choose 64 or 128")],
)
def test_options_that_do_not_fit(emoji, out, arguments, what):
    status, _, error = emoji("--yes", *arguments)
    assert status == 1 and what in error and not out.exists()


def test_folders_that_do_not_fit(emoji, out, tmp_path):
    out.mkdir()
    (out / "holiday.png").write_bytes(b"x")
    assert "holds other files" in emoji("--yes")[2]
    (out / "dataset.json").write_text("[]")
    assert "is not of this dataset" in emoji("--yes")[2]
    (out / "dataset.json").write_text(json.dumps({"size": 128, "kinds": ["images"]}))
    assert "holds images of 128 pixels" in emoji("--yes")[2]


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_the_soundfont_of_a_debian_package(emoji, out, registry, monkeypatch, tmp_path):
    pytest.importorskip("tinysoundfont")
    monkeypatch.setattr("codi_backend.data.emoji.build.performances", lambda: [])
    package = next(p for p in packages.PACKAGES if p.client == "apt-get")
    deb = registry / "fluid-soundfont-gm_3_all.deb"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        emoji_packages.write_deb(deb, package.member, Path(registry / package.file).read_bytes())
    status, _, error = emoji("--yes", only=("instruments",))
    deb.unlink()
    assert (status, fetched(registry)[-1]) == (0, "fluid-soundfont-gm"), error
    assert (out / ".packages" / "FluidR3_GM.sf2").read_bytes() == (registry / package.file).read_bytes()
