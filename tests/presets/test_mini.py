"""The shipped weights, and the README's first command."""

import json
import subprocess
import sys
import wave

import av
import numpy as np
import pytest
import torch
from PIL import Image

from codi_backend import CoDi
from codi_backend.checkpoints.native import read_parts, resolve
from codi_backend.cli.main import main
from codi_backend.evaluation.judges import judge_audio, judge_image, judge_text, judge_video
from codi_backend.presets import mini

OUTPUTS = ["text", "image", "video", "audio"]
COMMAND = ["generate", "--text", "three red stars, slowly", "--outputs", *OUTPUTS, "--seed", "0"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What the command writes."""
    folder = tmp_path_factory.mktemp("mini") / "out"
    subprocess.run([sys.executable, "-m", "codi_backend", *COMMAND, "--out", folder], check=True, timeout=300)
    return folder


def test_loads():
    codi = CoDi.load("mini")
    assert codi.config.name == mini.CONFIG.name == "mini"
    assert codi.outputs == tuple(OUTPUTS)
    assert all(p.isfinite().all() for p in codi.parameters())


def test_size():
    sizes = [path.stat().st_size for path in resolve("mini")]
    assert sum(sizes) <= 60e6 and max(sizes) < 16e6


def test_every_part_is_half_precision_with_a_training_record():
    needed = CoDi(mini.CONFIG).parts()
    files = {part: [p for p in resolve("mini") if p.name.startswith(f"mini_{part}")] for part in needed}
    assert sum(map(len, files.values())) == len(resolve("mini"))
    for part, paths in files.items():
        read = read_parts(paths)
        assert read.training, part
        for record in read.training:
            assert record.keys() >= {"stage", "options", "minutes", "machine", "torch", "final"}, part
        assert {t.dtype for state in read.parts.values() for t in state.values()} == {torch.float16}, part
        assert read.parts.keys() == {part}
        assert read.parts[part].keys() == needed[part].state_dict().keys()


def test_image(out):
    with Image.open(out / "image.png") as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")


def test_audio(out):
    with wave.open(str(out / "audio.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        assert file.getnframes() / file.getframerate() == 2.56


def test_image_is_red(out):
    assert judge_image(read_image(out / "image.png")).colour == "red"


def test_audio_is_red(out):
    with wave.open(str(out / "audio.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32767
    assert judge_audio(samples[None], 16000).colour == "red"


def test_text(out):
    assert judge_text((out / "text.txt").read_text()).colour == "red"


def test_video(out):
    pixels, rate, has_audio = read_frames(out / "video.mp4")
    assert pixels.shape == (16, 256, 256, 3) and rate == 6.25 and has_audio
    small = pixels.reshape(16, 64, 4, 64, 4, 3).mean((2, 4), dtype=np.float32) / 255
    assert judge_video(small.transpose(3, 0, 1, 2), rate).colour == "red"


def read_frames(path):
    """Frames, frames of a second, and whether there is audio."""
    with av.open(str(path)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
        return frames, float(file.streams.video[0].average_rate), bool(file.streams.audio)


def test_an_audio_prompt_shows_an_image(out, tmp_path):
    """No stage of training has an audio clip and an image as a pair."""
    arguments = ["generate", "--audio", str(out / "audio.wav"), "--outputs", "image", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert judge_image(read_image(tmp_path / "image.png")).colour == "red"


def test_a_video_is_given_its_audio(out, tmp_path):
    held = ["generate", "--hold", f"video={out / 'video.mp4'}", "--outputs", "audio", "--out", str(tmp_path)]
    assert main(held) == 0
    with wave.open(str(tmp_path / "audio.wav")) as file:
        assert file.getnframes() == 40960


def read_image(path):
    return (np.asarray(Image.open(path), np.float32) / 255).transpose(2, 0, 1)


def test_memory_and_settings(out):
    result = json.loads((out / "result.json").read_text())
    assert result["peak_memory_mb"] < 4000
    assert {"load", "denoise"} <= result["seconds"].keys() and all(s >= 0 for s in result["seconds"].values())
    assert (result["model"], result["seed"]) == ("mini", 0)
    assert (result["steps"], result["sampler"], result["guidance"]) == (30, "dpmpp_2m_sde", 2.5)
