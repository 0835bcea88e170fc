"""`codi generate` into a folder that holds results of an earlier run."""

import json

import pytest
from PIL import Image
from tiny import FOUR, build, save

from codi_backend.cli.main import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model") / "whole.safetensors", build(FOUR))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def generate(model, out):
    def call(*arguments):
        options = ["--model", str(model), "--steps", "1", "--candidates", "1", "--out", str(out)]
        return main(["generate", *options, *map(str, arguments)])

    return call


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def record(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_results_are_those_of_one_run(generate, out, capsys):
    assert generate("--outputs", "text", "image", "--count", "2") == 0
    (out / "notes.txt").write_text("mine")
    (out / "image_7.png").write_text("mine, too")
    assert generate("--outputs", "image") == 0
    assert "Removed image_1.png, image_2.png, text_1.txt, text_2.txt, of an earlier run." in capsys.readouterr().out
    assert contents(out).keys() == {"image.png", "result.json", "index.html", "notes.txt", "image_7.png"}
    assert (out / "notes.txt").read_text() == "mine" and (out / "image_7.png").read_text() == "mine, too"
    assert record(out)["files"] == [{"image": "image.png"}] and record(out)["kept"] == []


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("pipeline.CoDi.decode", KeyboardInterrupt),
        ("cli.generate.write_result", OSError(28, "No space left on device")),
        ("cli.generate.render_page", KeyboardInterrupt),
    ],
)
def test_an_error_leaves_the_earlier_results(generate, out, monkeypatch, step, error):
    assert generate("--outputs", "image", "text", "--seed", "1") == 0
    before = contents(out)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(f"codi_backend.{step}", fail)
    assert generate("--outputs", "image", "text", "--seed", "2") in (1, 130)
    assert contents(out) == before


def test_results_as_prompts_of_later_runs(generate, out):
    """The commands of the README, one after the other into the same folder."""
    assert generate("--outputs", "text", "image", "video", "audio") == 0
    audio = (out / "audio.wav").read_bytes()
    assert generate("--audio", out / "audio.wav", "--outputs", "image") == 0
    assert contents(out).keys() == {"audio.wav", "image.png", "result.json", "index.html"}
    assert (out / "audio.wav").read_bytes() == audio and record(out)["kept"] == ["audio.wav"]
    assert 'src="audio.wav"' not in (out / "index.html").read_text()
    image = (out / "image.png").read_bytes()
    assert generate("--image", out / "image.png", "--text", "quickly:0.5", "--outputs", "video", "audio") == 0
    assert contents(out).keys() == {"audio.wav", "video.mp4", "image.png", "result.json", "index.html"}
    assert (out / "image.png").read_bytes() == image and record(out)["kept"] == ["image.png"]
    assert (out / "audio.wav").read_bytes() != audio
    video = (out / "video.mp4").read_bytes()
    assert generate("--hold", f"video={out / 'video.mp4'}", "--outputs", "audio") == 0
    assert contents(out).keys() == {"audio.wav", "video.mp4", "film.mp4", "result.json", "index.html"}
    assert (out / "video.mp4").read_bytes() == video and record(out)["kept"] == ["video.mp4"]


@pytest.mark.parametrize("inputs", [["--image={}"], ["--hold=image={}", "--outputs", "text", "image"]])
def test_a_prompt_is_not_replaced_by_its_result(generate, out, capsys, inputs):
    assert generate("--outputs", "image") == 0
    before = contents(out)
    inputs = [argument.format(out / "image.png") for argument in inputs]
    assert generate(*inputs, *([] if len(inputs) > 1 else ["--outputs", "image"])) == 1
    assert "image.png is read by this run, whose result would replace it" in capsys.readouterr().err
    assert contents(out) == before


@pytest.mark.parametrize("name", ["image.png", "result.json", "index.html"])
@pytest.mark.parametrize("content", ["mine", '{"files": 3}', "[]", '{"files": [{"image": "../image.png"}]}'])
def test_files_of_others_are_not_replaced(generate, out, capsys, name, content):
    out.mkdir()
    Image.new("RGB", (2, 2)).save(out.parent / "image.png")
    (out / name).write_text(content)
    code = generate("--outputs", "image")
    if name == "result.json" and content.startswith('{"files": ['):  # as of an earlier run whose files are not here
        assert code == 0
    else:
        assert code == 1 and "is no result of an earlier run" in capsys.readouterr().err
        assert contents(out) == {name: content.encode()}
    assert Image.open(out.parent / "image.png").size == (2, 2)
