"""Any-to-any generation with all modalities, in the library and by `codi generate`."""

import json
import math
import re

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import FOUR, build, save

from codi_backend.checkpoints.parts import needed_parts
from codi_backend.cli.main import main
from codi_backend.conditioning.prompt import interpolate
from codi_backend.data import ShapesAndChimes
from codi_backend.media.read import probe, read_audio, read_image
from codi_backend.media.write import save_video, save_wav, to_pil
from codi_backend.pipeline import CoDi

pytestmark = pytest.mark.audio

ALL = ["text", "image", "video", "audio"]


@pytest.fixture(scope="module")
def whole():
    return build(FOUR)


@pytest.fixture(scope="module")
def folder(whole, tmp_path_factory):
    """The model, and a file of every kind."""
    folder = tmp_path_factory.mktemp("whole")
    save(folder / "whole.safetensors", whole)
    item = ShapesAndChimes(1, ("image", "video", "audio"))[0]
    to_pil(item["image"]).save(folder / "a.png")
    save_wav(folder / "a.wav", item["audio"][:, :10240], 16000)
    save_video(folder / "a.mp4", item["video"][:, :4], 6.25, item["audio"][:, :10240], 16000)
    (folder / "a.txt").write_text("two red stars\n")
    return folder


@pytest.fixture
def generate(folder, tmp_path):
    def call(*arguments):
        arguments = [str(folder / a) if re.match(r"a\.\w+(:|$)", a) else a for a in arguments]
        options = ["--model", str(folder / "whole.safetensors"), "--steps", "1", "--out", str(tmp_path / "out")]
        return main(["generate", *options, *arguments])

    return call


@pytest.fixture
def result(tmp_path):
    return lambda: json.loads((tmp_path / "out" / "result.json").read_text())


@pytest.fixture(scope="module")
def prompt(whole):
    return whole.prompt("text", ["two red stars", "one star"])


@pytest.fixture(scope="module")
def four(whole, prompt):
    return whole.generate_latents(prompt, ALL, steps=1)


def test_all_four_together(whole, prompt, four):
    assert {name: z.shape for name, z in four.items()} == {name: (2, *whole.latent_shape(name)) for name in ALL}
    for name, z in whole.generate_latents(prompt, ALL[::-1], steps=1).items():
        assert torch.equal(z, four[name])


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_any_stream_can_be_held(whole, prompt, four, name, named):
    others = [other for other in ALL if other != name]
    held = {name: four[name][1:]}
    out = whole.generate_latents(prompt, ALL if named else others, steps=1, held=held)
    assert list(out) == (ALL if named else others)
    if named:
        assert torch.equal(out[name], held[name].expand_as(four[name]))
    alone = whole.generate_latents(prompt, others, steps=1)
    for other in others:
        assert (out[other] - alone[other]).abs().max() > 1e-4, "it did not attend to the held stream"


def test_held_streams_are_decoded(whole, prompt, four):
    out = whole.generate(prompt, ["audio", "image"], steps=1, held={"image": four["image"]})
    assert torch.equal(out["image"], whole.decode("image", four["image"]))
    assert out["audio"]["waveform"].shape == (2, 1, 10240)


def test_what_is_held_is_as_long_as_the_rest(whole, prompt, four):
    out = whole.generate_latents(prompt, ["video"], steps=1, frames=2, held={"audio": four["audio"][:, :, :4]})
    assert out["video"].shape == (2, 4, 2, 8, 8)
    with pytest.raises(ValueError, match=r"held audio is \[2, 8, 8, 8\], where \[2, 8, 4, 8\] is needed"):
        whole.generate_latents(prompt, ["video"], steps=1, frames=2, held={"audio": four["audio"]})


@pytest.mark.parametrize(
    ("outputs", "held", "options", "message"),
    [
        (["audio"], {"image": torch.zeros(1, 4, 4, 4)}, {}, r"image is \[1, 4, 4, 4\], where \[2, 4, 8, 8\] is needed"),
        (["audio"], {"image": torch.zeros(3, 4, 8, 8)}, {}, r"\[3, 4, 8, 8\]"),
        (["audio"], {"video": torch.zeros(1, 4, 4, 8, 8)}, {"frames": 2}, r"where \[2, 4, 2, 8, 8\] is needed"),
        (["audio"], {"text": torch.zeros(())}, {}, r"text is \[\]"),
        (["audio"], {"text": torch.full((1, 16), math.nan)}, {}, "text holds values that are not finite"),
        (["audio"], {"text": ["two red stars"]}, {}, "text is a list: give latents, as `encode` makes them"),
        (["audio"], {"smell": torch.zeros(1)}, {}, "no modality 'smell'"),
        (["text"], {"text": torch.zeros(1, 16)}, {}, "Every stream is held"),
        ([], {"text": torch.zeros(1, 16)}, {}, "No outputs were asked for"),
    ],
)
def test_what_cannot_be_held(whole, prompt, outputs, held, options, message):
    with pytest.raises(ValueError, match=message):
        whole.generate_latents(prompt, outputs, steps=1, held=held, **options)


def test_what_a_model_lacks_cannot_be_held(codi):
    with pytest.raises(ValueError, match="cannot generate text: choose from image, audio"):
        codi.generate_latents(codi.prompt("text", ""), ["image"], steps=1, held={"text": torch.zeros(1, 16)})


def test_every_prompt_to_every_output(generate, result, tmp_path):
    prompts = ["--audio", "a.mp4", "--text", "two <red> stars:0.5", "--image", "a.png", "--video", "a.mp4"]
    assert generate(*prompts, "--interpolation", "slerp", "--outputs", *ALL, "--count", "2") == 0
    out = tmp_path / "out"
    record = result()
    assert [(p["modality"], p["weight"]) for p in record["prompts"]] == [
        ("audio", 1.0),
        ("text", 0.5),
        ("image", 1.0),
        ("video", 1.0),
    ]
    assert record["interpolation"] == "slerp"
    kinds = {"text": "txt", "image": "png", "video": "mp4", "audio": "wav"}
    assert record["files"] == [{name: f"{name}_{i}.{kind}" for name, kind in kinds.items()} for i in (1, 2)]
    assert {p.name for p in out.iterdir()} == {
        *(file for files in record["files"] for file in files.values()),
        "result.json",
        "index.html",
    }
    with av.open(str(out / "video_2.mp4")) as file:
        video, audio = file.streams
        assert (video.codec_context.name, video.format.name, video.frames, video.average_rate) == (
            "h264",
            "yuv420p",
            4,
            6.25,
        )
        assert (video.width, video.height, audio.codec_context.name, audio.rate) == (256, 256, "aac", 16000)
    page = (out / "index.html").read_text()
    for file in ("image_1.png", "video_1.mp4", "audio_1.wav"):
        assert f'src="{file}"' in page
    assert page.count('class="thumbnail"') == 3 and "two &lt;red&gt; stars" in page and "weight 0.5" in page
    assert not re.search("https?:|url\\(|@import", page)


def test_results_are_those_of_the_library(generate, whole, folder, tmp_path):
    assert generate("--image", "a.png:0.3", "--text", "one star", "--outputs", "image") == 0
    pixels = torch.from_numpy(np.array(Image.open(folder / "a.png"))).permute(2, 0, 1)[None] / 255
    mixed = interpolate([(whole.prompt("image", pixels), 0.3), (whole.prompt("text", "one star"), 1)])
    expected = to_pil(whole.generate(mixed, ["image"], steps=1)["image"][0])
    assert np.abs(np.asarray(Image.open(tmp_path / "out" / "image.png"), int) - np.asarray(expected, int)).max() <= 1


def test_no_prompt_is_the_empty_text(generate, tmp_path):
    images = []
    for arguments in ([], ["--text", ""]):
        assert generate("--outputs", "image", *arguments) == 0
        images.append((tmp_path / "out" / "image.png").read_bytes())
    assert images[0] == images[1]
    assert "(no prompt)" in (tmp_path / "out" / "index.html").read_text()


def test_held_files_come_back(generate, result, whole, folder, tmp_path):
    held = [f"--hold={name}={folder / file}" for name, file in (("video", "a.mp4"), ("text", "a.txt"))]
    assert generate(*held, "--outputs", "audio", "video") == 0
    record = result()
    assert record["held"] == [
        {"modality": "video", "file": str(folder / "a.mp4")},
        {"modality": "text", "file": str(folder / "a.txt")},
    ]
    video = ShapesAndChimes(1, ("video",))[0]["video"][None, :, :4]
    expected = whole.decode("video", whole.encode("video", video))[0]
    with av.open(str(tmp_path / "out" / "video.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    ours = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[:, :, 2::4, 2::4] / 255
    assert (ours - expected).abs().mean() < 0.03
    assert "video, held" in (tmp_path / "out" / "index.html").read_text()


def test_held_audio_and_images_are_fitted(generate, tmp_path):
    held = ["--hold", f"audio={tmp_path / 'long.wav'}", "--hold", f"image={tmp_path / 'wide.png'}"]
    save_wav(tmp_path / "long.wav", torch.rand(1, 30000) - 0.5, 8000)
    Image.new("RGB", (300, 100), "red").save(tmp_path / "wide.png")
    assert (
        generate(*held, "--outputs", "text", "video", "--image-size", "32", "--seconds", "0.32", "--frames", "3") == 0
    )
    with av.open(str(tmp_path / "out" / "video.mp4")) as file:
        assert (file.streams.video[0].frames, len(file.streams.audio)) == (3, 0)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Four seconds with a tone."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    tone = 0.3 * torch.sin(torch.arange(64000) * 2 * math.pi * 500 / 16000)
    save_video(path, torch.rand(3, 25, 64, 64), 6.25, tone[None], 16000)
    return path


def test_a_held_film_gets_the_new_audio(generate, result, film, tmp_path, capsys):
    held = ["--hold", f"video={film}@1.6", "--outputs", "audio", "--seconds", "1.28"]
    assert generate(*held, "--count", "2") == 0
    record, out = result(), tmp_path / "out"
    assert record["files"] == [{"audio": f"audio_{i}.wav", "film": f"film_{i}.mp4"} for i in (1, 2)]
    assert record["film"] == {"file": str(film), "seconds": 4.0, "audio": [1.6, 2.88], "keep_sound": False}
    assert probe(out / "film_2.mp4").audio_seconds == probe(out / "film_2.mp4").video_seconds == 4
    made, rate = read_audio(out / "audio_2.wav")
    track = read_audio(out / "film_2.mp4")[0][:, ::3]  # of 48 kHz
    assert made.shape[-1] == 1.28 * rate
    begin, end = round(1.6 * rate), round(2.88 * rate)
    assert torch.corrcoef(torch.cat([made, track[:, begin:end]]))[0, 1] > 0.95
    assert max(track[:, : begin - 1600].abs().max(), track[:, end + 1600 :].abs().max()) < 0.01
    page = (out / "index.html").read_text()
    assert 'src="film_1.mp4"' in page and "film.mp4</a> with the new audio from 1.6 to 2.88 s</small>" in page
    printed = capsys.readouterr().err
    assert f"codi: {film} lasts 4.00 s: the video that is held is the part from 1.60 to 2.88 s" in printed
    assert "has new audio from 1.60 to 2.88 s; the rest has silence; --keep-sound keeps its own audio." in printed
    assert generate(*held, "--keep-sound") == 0
    assert result()["film"]["keep_sound"] is True
    own, _ = read_audio(film)
    track = read_audio(out / "film.mp4")[0][:, ::3]
    assert torch.corrcoef(torch.cat([own, track])[:, : begin - 1600])[0, 1] > 0.99
    assert ", mixed with its own" in (out / "index.html").read_text()


def test_no_film_where_there_is_no_new_audio(generate, result, film, folder, capsys):
    for arguments in (["--outputs", "text"], ["--hold", f"audio={folder / 'a.wav'}", "--outputs", "text"]):
        assert generate("--hold", f"video={film}", *arguments) == 0
        assert "film" not in result() and list(result()["files"][0]) == ["text"]
        assert generate("--hold", f"video={film}", *arguments, "--keep-sound") == 1
        assert "--keep-sound is for a film that gets new audio" in capsys.readouterr().err


def test_a_film_that_cannot_be_copied_costs_nothing_else(generate, result, tmp_path, capsys):
    frames = [Image.new("RGB", (64, 64), (60 * i, 0, 0)) for i in range(4)]
    frames[0].save(tmp_path / "anim.gif", save_all=True, append_images=frames[1:], duration=160)
    assert generate("--hold", f"video={tmp_path / 'anim.gif'}", "--outputs", "audio") == 0
    assert result()["files"] == [{"audio": "audio.wav"}] and "film" not in result()
    assert re.search(r"codi: No film was written: .*anim.gif cannot be .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(("size", "frames", "steps"), [(["--seconds", "1.28"], 8, 16), (["--frames", "6"], 6, 12)])
def test_one_length_for_all_streams(generate, film, tmp_path, size, frames, steps):
    held = [] if frames == 6 else ["--hold", f"audio={film}"]
    assert generate(*held, "--outputs", "video", "audio", *size) == 0
    assert round(probe(tmp_path / "out" / "video.mp4").video_seconds * 6.25) == frames
    assert read_audio(tmp_path / "out" / "audio.wav")[0].shape[-1] == steps * 1280
    assert generate("--outputs", "audio", *size) == 0  # a model without its part for videos
    assert read_audio(tmp_path / "out" / "audio.wav")[0].shape[-1] == steps * 1280


def test_only_what_is_needed_is_loaded(generate, monkeypatch, tmp_path):
    loaded = []
    load = CoDi.load.__func__

    def watch(cls, *args, **options):
        codi = load(cls, *args, **options)
        loaded.append(set(codi.parts()))
        return codi

    monkeypatch.setattr(CoDi, "load", classmethod(watch))
    assert generate("--audio", "a.wav", "--outputs", "video") == 0
    assert loaded == [{"prompt_encoders.audio", "diffuser.image", "autoencoders.image"}]
    assert needed_parts(ALL, ALL, FOUR) == set(build(FOUR).parts()) and FOUR.name == "whole"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hold", "video=nowhere.mp4"], "There is no file nowhere.mp4"),
        (["--hold", "audio=a.png"], "There is no file a.png"),
        (["--image", "a.wav"], "a.wav cannot be read as an image"),
        (["--audio", "a.png"], "a.png has no audio track"),
        (["--video", "a.txt"], "a.txt cannot be read as a video"),
        (["--frames", "4199", "--outputs", "video"], "4199 frames"),
        (["--frames", "4", "--seconds", "3", "--outputs", "video"], "4 frames last 0.64 s"),
        (["--seconds", "nan", "--outputs", "audio"], "seconds: nan s is out of range"),
        (["--seconds", "30", "--window", "inf", "--outputs", "video"], "window: 30.08 s are 188 frames of a video"),
        (["--hold", "audio=a.wav", "--outputs", "video", "--seconds", "0"], "seconds: 0.0 s is out of range"),
    ],
)
def test_mistakes_are_one_line(generate, tmp_path, capsys, arguments, message):
    assert generate(*arguments) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(r"codi: .+\n", captured.err) and message in captured.err
    assert not (tmp_path / "out").exists()


def test_a_long_clip_with_prompts_by_time(generate, result, tmp_path, folder, whole, capsys, monkeypatch):
    """Clips of the model's training last 0.64 s."""
    monkeypatch.setattr("codi_backend.cli.generate._BAR_DELAY", 0)
    asked, sample = [], CoDi.generate_latents
    monkeypatch.setattr(
        CoDi,
        "generate_latents",
        lambda codi, given, *rest, **named: (asked.append(given), sample(codi, given, *rest, **named))[1],
    )
    options = [
        "--seconds",
        "1.6",
        "--window",
        "0.64",
        "--outputs",
        "video",
        "audio",
        "--candidates",
        "1",
        "--seed",
        "4",
    ]
    texts = ["--at", "0.96", "--text", "blue", "--at", "0", "--text", "red stars", "--image", "a.png:0.5"]
    assert generate(*options, *texts) == 0
    assert "100%" in (progress := capsys.readouterr().err) and "3/3" in progress
    assert [(p["modality"], p["weight"], p["start"]) for p in result()["prompts"]] == [
        ("text", 1.0, 0.0),
        ("image", 0.5, 0.0),
        ("text", 1.0, 0.96),
    ]
    assert probe(tmp_path / "out" / "video.mp4").video_seconds == pytest.approx(1.6)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "weight 0.5, from 0 s" in page and "weight 1, from 0.96 s" in page
    image = whole.prompt("image", read_image(folder / "a.png")[None])
    first = interpolate([(whole.prompt("text", "red stars"), 1.0), (image, 0.5)])
    for (prompt, start), expected in zip(asked[0], [(first, 0.0), (whole.prompt("text", "blue"), 0.96)], strict=True):
        assert start == expected[1]
        torch.testing.assert_close(prompt.embedding, expected[0].embedding)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "red", "--at", "1"], "--at 1 is not followed by a prompt"),
        (["--at", "1", "--text", "red"], "prompts: the first one starts at 1 s; give one that starts at 0"),
        (["--text", "red", "--at", "1", "--text", "blue", "--outputs", "image"], "prompts: no video or audio is"),
        (["--outputs", "video", "--window", "0"], "window: 0 is out of range"),
        (["--outputs", "video", "--seconds", "20", "--overlap", "0.64"], "overlap: 0.64 s leave nothing new"),
    ],
)
def test_bad_windows_and_starts(generate, capsys, arguments, message):
    assert generate(*arguments) == 1
    assert message in capsys.readouterr().err


def test_a_start_is_for_models_with_time(capsys, tmp_path):
    arguments = ["--model", "vd-mini", "--outputs", "image", "--out", str(tmp_path / "out")]
    assert main(["generate", *arguments, "--text", "red stars", "--at", "1", "--text", "blue stars"]) == 1
    assert "generates nothing that has time: leave --at out" in capsys.readouterr().err
