"""`codi generate --prompts`: lines, manifest, failures, and what a later run does again."""

import argparse
import json
import os
import re

import pytest
import torch
from PIL import Image
from tiny import FOUR, build, save

from codi_backend.cli.main import _parser, main
from codi_backend.cli.prompt_lines import KEYS, read_lines
from codi_backend.data import ShapesAndChimes
from codi_backend.media.write import save_video, save_wav, to_pil

pytestmark = pytest.mark.audio


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model") / "whole.safetensors", build(FOUR))


@pytest.fixture
def folder(tmp_path):
    """A file of every kind, beside the prompts."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    item = ShapesAndChimes(1, ("image", "video", "audio"))[0]
    to_pil(item["image"]).save(folder / "sub" / "a.png")
    save_wav(folder / "a.wav", item["audio"][:, :10240], 16000)
    save_video(folder / "a.mp4", item["video"][:, :4], 6.25, item["audio"][:, :10240], 16000)
    (folder / "a.txt").write_text("two red stars\n")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def generate(model, folder, out):
    def call(lines, *arguments):
        lines = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (folder / "p.jsonl").write_text("\n".join(lines) + "\n")
        return command("--prompts", folder / "p.jsonl", "--out", out, *arguments)

    def command(*arguments):
        return main(["generate", "--model", str(model), "--steps", "1", *map(str, arguments)])

    call.command = command
    return call


def manifest(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def contents(folder):
    """The files of results, and the record without what a run took."""
    read = {path.name: path.read_bytes() for path in folder.iterdir()}
    del read["index.html"]
    record = json.loads(read.pop("result.json"))
    for name in ("seconds", "peak_memory_mb", "line", "request"):
        record.pop(name, None)
    return read, record


def made(out):
    """When each line's results were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/result.json")}


def test_any_mix_of_modalities(generate, folder, out, tmp_path, capsys):
    """Every line gives what the command gives for the same options, bit for bit."""
    lines = [
        {"text": ["two red stars", "one star:0.5"], "image": "sub/a.png:0.3", "outputs": "image", "count": 2},
        "",
        {"audio": "a.wav", "hold": {"text": "a.txt"}, "outputs": ["video", "audio"], "seed": 5, "frames": 2},
        {"Video": "a.mp4@0.16:2", "outputs": ["text"], "image-size": None, "guidance": 2, "alignment": "none"},
        {"hold": {"video": "a.mp4"}, "outputs": ["audio"], "keep_sound": True, "candidates": 2},
    ]
    assert generate(lines, "--seed", "3") == 0
    assert f"4 of 4 lines have results: {out / 'manifest.jsonl'} lists them." in capsys.readouterr().out
    same = {
        1: ["--text", "two red stars", "--text", "one star:0.5", "--image", f"{folder}/sub/a.png:0.3", "--count", 2]
        + ["--outputs", "image", "--seed", 3],
        3: ["--audio", f"{folder}/a.wav", "--hold", f"text={folder}/a.txt", "--outputs", "video", "audio", "--seed", 5]
        + ["--frames", 2],
        4: ["--video", f"{folder}/a.mp4@0.16:2", "--outputs", "text", "--guidance", 2, "--alignment", "none"]
        + ["--seed", 3],
        5: ["--hold", f"video={folder}/a.mp4", "--outputs", "audio", "--keep-sound", "--candidates", 2, "--seed", 3],
    }
    for line, arguments in same.items():
        alone = tmp_path / f"alone{line}"
        assert generate.command(*arguments, "--out", alone) == 0
        assert contents(out / f"{line:06d}") == contents(alone)
    assert manifest(out) == [
        {"line": 1, "result": 1, "seed": 3, "files": {"image": "000001/image_1.png"}},
        {"line": 1, "result": 2, "seed": 3, "files": {"image": "000001/image_2.png"}},
        {"line": 3, "result": 1, "seed": 5, "files": {"video": "000003/video.mp4", "audio": "000003/audio.wav"}},
        {"line": 4, "result": 1, "seed": 3, "files": {"text": "000004/text.txt"}},
        {"line": 5, "result": 1, "seed": 3, "files": {"audio": "000005/audio.wav", "film": "000005/film.mp4"}},
    ]
    assert all((out / file).is_file() for row in manifest(out) for file in row["files"].values())
    page = (out / "index.html").read_text()
    for row in manifest(out):
        assert all(f'src="{file}"' in page for name, file in row["files"].items() if name != "text")
    assert (out / "000004" / "text.txt").read_text() in page
    assert '<a href="000001/index.html">Line 1: two red stars + one star + a.png</a>' in page


def test_every_option_is_a_key_of_a_line_or_of_the_whole_run():
    """A new option of the command has to be in one of the two lists; --at is for the prompts of a command."""
    subparsers = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    names = {action.option_strings[-1].removeprefix("--") for action in subparsers.choices["generate"]._actions}
    whole = {"help", "prompts", "at", "out", "model", "vocabulary", "device", "json"}
    assert {key.replace("_", "-") for key in KEYS} == names - whole


def test_what_is_finished_is_kept(generate, folder, out, capsys):
    lines = [{"text": "one star", "outputs": ["image"]}, {"image": "sub/a.png", "outputs": ["image"]}]
    assert generate(lines) == 0
    before, read = made(out), (out / "manifest.jsonl").read_bytes()
    assert generate(lines) == 0
    assert made(out) == before and (out / "manifest.jsonl").read_bytes() == read
    assert "2 of 2 lines: line 2 was finished earlier" in capsys.readouterr().err
    Image.new("RGB", (64, 64), "red").save(folder / "sub" / "a.png")

    def again(lines, *arguments):
        before = made(out)
        assert generate(lines, *arguments) == 0
        return sorted(int(name) for name, when in made(out).items() if before.get(name) != when)

    assert again(lines) == [2], "the content of a file is another"
    lines[0]["text"] = "two stars"
    assert again([*lines, {"outputs": ["image"]}]) == [1, 3]
    assert again(lines) == []
    assert [row["line"] for row in manifest(out)] == [1, 2], "of line 3, which is no more"
    lines[0]["outputs"] = ["text"]
    assert again(lines) == [1]
    assert {path.name for path in (out / "000001").iterdir()} == {"text.txt", "result.json", "index.html"}
    assert again(lines, "--seed", "1") == [1, 2]
    (out / "000002" / "image.png").unlink()
    assert again(lines, "--seed", "1") == [2]


def test_another_model_makes_all_anew(generate, model, out, tmp_path):
    lines = [{"outputs": ["image"]}]
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(model.read_bytes())
    assert generate(lines) == 0
    before = made(out)
    assert generate(lines, "--model", copy) == 0 and made(out) == before
    other = build(FOUR)
    with torch.no_grad():
        next(other.autoencoders["text"].parameters()).view(-1)[0] += 1
    save(copy, other)
    assert generate(lines, "--model", copy) == 0 and made(out) != before


def test_failures_are_listed_and_the_others_go_on(generate, folder, out, capsys):
    (folder / "broken.png").write_text("no picture")
    failing = {
        "not json": "is not JSON (Expecting value: line 1 column 1 (char 0)): write one object a line.",
        "[1]": "is not a JSON object: write one a line (an array goes into a .json).",
        '{"seed": 1, "seed": 2}': "is not JSON (it has the key 'seed' twice): write one object a line.",
        '{"seed": 1, "Seed": 2}': ": seed is named twice: name it once.",
        '{"guidence": 2}': ": 'guidence' is no option of a line; choose from text, image, video, audio, hold, count,",
        '{"model": "mini"}': ": 'model' is no option of a line; choose from",
        '{"steps": "ten"}': ": steps is 'ten': write a whole number.",
        '{"steps": 1.5}': ": steps is 1.5: write a whole number.",
        '{"count": true}': ": count is True: write a whole number.",
        '{"count": 0}': ": --count: 0 is out of range; choose a whole number from 1 to 10000.",
        '{"guidance": NaN, "outputs": "image"}': ": guidance: nan is out of range",
        '{"seconds": "1"}': ": seconds is '1': write a number.",
        '{"sampler": 3}': ": sampler is 3: write a text.",
        '{"sampler": "magic"}': ": There is no sampler 'magic'; choose from dpmpp_2m,",
        '{"keep_sound": 1}': ": keep_sound is 1: write true or false.",
        '{"text": {"a": 1}}': ": text is {'a': 1}: write a text, or several in brackets.",
        '{"text": []}': ": text is []: write a text, or several in brackets.",
        '{"text": "\\ud800"}': " is not valid UTF-8.",
        '{"outputs": "smell"}': ": There is no modality 'smell'; choose from text, image, video, audio.",
        '{"outputs": []}': ": outputs is []: write a text, or several in brackets.",
        '{"hold": "video=a.mp4"}': ': hold is \'video=a.mp4\': write files by modality, as in {"video": "rain.mp4"}.',
        '{"hold": {"smell": "a.mp4"}}': ": There is no modality 'smell'",
        '{"image": ""}': ": '' is not a file name.",
        '{"image": "https://example.com/a.png"}': ": image has the address https://example.com/a.png: nothing is "
        "downloaded. Give the path of a file.",
        '{"image": "nowhere.png"}': f": There is no file {folder / 'nowhere.png'}.",
        '{"image": "broken.png"}': "broken.png cannot be read as an image",
        '{"outputs": "video", "frames": 9999}': ": frames: 9999 frames",
    }
    good = '{"text": "one star", "outputs": ["image"]}'
    assert generate([*failing, good]) == 1
    rows = manifest(out)
    assert [row["line"] for row in rows] == list(range(1, len(failing) + 2))
    err = capsys.readouterr().err
    for row, (line, reason) in zip(rows, failing.items()):
        assert row["failure"].startswith(f"Line {row['line']} of {folder / 'p.jsonl'}") and reason in row["failure"], (
            line
        )
        assert re.search(rf"^codi: {re.escape(row['failure'])}$", err, re.M)
        assert not (out / f"{row['line']:06d}").exists()
    assert rows[-1]["files"] == {"image": f"{len(rows):06d}/image.png"}
    assert f"codi: {len(failing)} of {len(rows)} lines failed: {out / 'manifest.jsonl'} has the reasons." in err
    page = (out / "index.html").read_text()
    assert "<h2>Line 1</h2>" in page and "is not JSON" in page
    assert not list(out.glob(".codi-*"))


def test_what_failed_is_tried_again(generate, folder, out):
    lines = [{"image": "late.png", "outputs": ["image"]}, {"outputs": ["image"]}]
    assert generate(lines) == 1
    before = made(out)
    Image.new("RGB", (64, 64), "red").save(folder / "late.png")
    assert generate(lines) == 0
    assert made(out).keys() == {"000001", "000002"} and made(out)["000002"] == before["000002"]
    (folder / "late.png").unlink()
    assert generate(lines) == 1  # what it showed is not known any more
    assert [("failure" in row) for row in manifest(out)] == [True, False]


def test_what_a_killed_process_leaves(generate, out):
    """Its hidden folder, and a part of the files, the record first."""
    lines = [{"outputs": ["image", "audio"]}]
    assert generate(lines) == 0
    whole = contents(out / "000001")
    left = out / "000001" / ".codi-abc"
    (left / "new").mkdir(parents=True)
    os.replace(out / "000001" / "image.png", left / "new" / "image.png")
    (out / "manifest.jsonl").unlink()
    (out / "index.html").unlink()
    assert generate(lines) == 0
    assert contents(out / "000001") == whole and (out / "manifest.jsonl").exists()


def test_files_of_others_stay(generate, folder, out, capsys):
    lines = [{"outputs": ["image"]}]

    def refused(message, lines=lines, *arguments):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert generate(lines, *arguments) == 1
        assert re.fullmatch(rf"codi: .*{message}.*\n", capsys.readouterr().err)
        assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    out.mkdir()
    for name in ("manifest.jsonl", "index.html"):
        for text in ('{"text": "mine"}\n', ""):
            (out / name).write_text(text)
            refused(f"{name} exists and is no result of an earlier run: move it away")
        (out / name).unlink()
    (out / "manifest.jsonl").write_text(json.dumps(lines[0]))
    assert generate.command("--prompts", out / "manifest.jsonl", "--out", out) == 1
    assert "manifest.jsonl is read by this run, whose result would replace it" in capsys.readouterr().err
    (out / "manifest.jsonl").unlink()
    assert generate(lines) == 0
    capsys.readouterr()
    image = str(out / "000001" / "image.png")
    refused("image.png is read by this run, whose result may replace it", [*lines, {"image": image}])
    (out / "000002").mkdir()
    (out / "000002" / "image.png").write_text("mine")
    assert generate([*lines, {"outputs": ["image"]}]) == 1
    assert (out / "000002" / "image.png").read_text() == "mine"
    assert "image.png exists and is no result of an earlier run" in manifest(out)[1]["failure"]


def test_mistakes_of_the_command(generate, folder, out, capsys):
    (folder / "p.json").write_text("[]")
    (folder / "empty.jsonl").write_text("\n\n")
    one = [{"outputs": ["image"]}]
    for arguments, message in (
        (("--text", "stars"), "--prompts names a file whose lines hold prompts and held streams"),
        (("--hold", "image=a.png"), "--prompts names a file whose lines hold prompts and held streams"),
        (("--prompts", folder / "p.json"), "p.json is no file of prompts: give a .jsonl with one JSON object a line."),
        (("--prompts", folder / "empty.jsonl"), "empty.jsonl has no lines: write one JSON object a line."),
        (("--prompts", folder / "none.jsonl"), "There is no file .*none.jsonl"),
        (("--out", folder / "a.txt"), "a.txt is a file, not a folder"),
    ):
        assert generate(one, *arguments) == 1
        assert re.fullmatch(rf"codi: .*{message}.*\n", capsys.readouterr().err)
    assert not out.exists()


def test_the_manifest_on_stdout(generate, out, capsys):
    assert generate([{"outputs": ["image"]}], "--json") == 0
    assert json.loads(capsys.readouterr().out) == manifest(out)


def test_only_lines_that_are_not_empty_count(tmp_path):
    (tmp_path / "p.jsonl").write_text('\n{"seed": 7}\n  \n{"count": 2}\n')
    lines = read_lines(tmp_path / "p.jsonl", argparse.Namespace(seed=1, count=1, outputs=None))
    assert [(line.number, line.options.seed, line.options.count) for line in lines] == [(2, 7, 1), (4, 1, 2)]
