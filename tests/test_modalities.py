"""Sizes and lengths that are asked for, and the shapes of latents that follow."""

import dataclasses
import math

import pytest
import torch
from tiny import FOUR, build

from codi_backend.checkpoints import codi as published
from codi_backend.modalities import MAX_CLIP_FRAMES, audio_steps, latent_shape, lengths
from codi_backend.presets import mini

MINI, PUBLISHED = mini.CONFIG, published.CONFIG


def shapes(config, **size):
    return {name: latent_shape(config, name, **size) for name in ("text", "image", "video", "audio")}


def test_the_models_own_sizes():
    assert shapes(MINI) == {
        "text": (64,),
        "image": (4, 8, 8),
        "video": (4, 16, 8, 8),
        "audio": (8, 32, 8),
    }
    assert shapes(PUBLISHED) == {
        "text": (768,),
        "image": (4, 32, 32),
        "video": (4, 8, 32, 32),
        "audio": (8, 256, 16),
    }


@pytest.mark.parametrize(
    ("config", "size", "frames", "steps"),
    [
        (MINI, {"seconds": 2.56}, 16, 32),
        (MINI, {"seconds": 3}, 19, 40),
        (MINI, {"seconds": 4.8}, 30, 60),
        (MINI, {"seconds": 0.01}, 1, 4),
        (MINI, {"seconds": 2.5601}, 17, 36),
        (MINI, {"seconds": 0.1 + 0.2 + 2.26}, 16, 32),  # 2.5599999999999996
        (MINI, {"frames": 30}, 30, 60),
        (MINI, {"frames": 17}, 17, 36),
        (MINI, {"frames": 1}, 1, 4),
        (MINI, {"frames": 19, "seconds": 3}, 19, 40),
        (MINI, {"frames": 20, "seconds": 3.0}, 20, 40),
        (PUBLISHED, {"seconds": 2}, 8, 56),
        (PUBLISHED, {"frames": 8}, 8, 56),
        (PUBLISHED, {"frames": 16}, 16, 104),
    ],
)
def test_one_length_sets_all_streams(config, size, frames, steps):
    found = shapes(config, **size)
    assert (found["video"][1], found["audio"][1]) == (frames, steps)
    assert found["image"] == shapes(config)["image"] and found["text"] == shapes(config)["text"]


def test_longer_than_any_video():
    assert latent_shape(MINI, "audio", seconds=10)[1] == 128
    assert latent_shape(MINI, "audio", frames=100)[1] == 200
    assert latent_shape(MINI, "video", seconds=5.12)[1] == 32
    quick = dataclasses.replace(MINI.image_autoencoder, frame_rate=12.5)
    config = dataclasses.replace(MINI, image_autoencoder=quick)
    with pytest.raises(
        ValueError, match="^seconds: 400 s are 5000 frames .* has at most 4096; choose at most 327.68 s"
    ):
        latent_shape(config, "video", seconds=400)
    with pytest.raises(ValueError, match=r"^frames: 4097 frames are out of range; .* which last 327.68 s"):
        latent_shape(config, "video", frames=MAX_CLIP_FRAMES + 1)
    with pytest.raises(ValueError, match=r"^frames: 4097 frames last 655.52 s; choose fewer, which last at most 600 s"):
        latent_shape(MINI, "video", frames=MAX_CLIP_FRAMES + 1)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"seconds": 0}, "^seconds: 0 s is out of range; choose more than 0, and at most 600 s"),
        ({"seconds": -1.5}, "^seconds: -1.5 s is out of range"),
        ({"seconds": math.nan}, "^seconds: nan s is out of range"),
        ({"seconds": math.inf}, "^seconds: inf s is out of range"),
        ({"seconds": 1e12}, "^seconds: 1e[+]?12 s|^seconds: 1000000000000.0 s is out of range"),
        ({"frames": 0}, "^frames: 0 frames are out of range; choose 1 to 4096"),
        ({"frames": -3}, "^frames: -3 frames are out of range"),
        ({"frames": 2.5}, "^frames: 2.5 is not a whole number"),
        ({"frames": 10**12}, "^frames: 1000000000000 frames"),
        (
            {"frames": 16, "seconds": 5.12},
            "^frames, seconds: 16 frames last 2.56 s .* not the 5.12 s .* at most 0.32 s",
        ),
        ({"frames": 16, "seconds": 2.2}, "^frames, seconds: 16 frames last 2.56 s"),
        ({"image_size": 0}, "^image_size: 0 pixels do not fit the model 'mini'; choose a multiple of 16 up to 4096"),
        ({"image_size": 100}, "^image_size: 100 pixels do not fit"),
        ({"image_size": 10**9}, "^image_size: 1000000000 pixels do not fit"),
        ({"image_size": (64, 72)}, "^height: 72 pixels do not fit"),
        ({"image_size": (72, None)}, "^width: 72 pixels do not fit"),
    ],
)
def test_sizes_out_of_range(size, message):
    with pytest.raises(ValueError, match=message):
        shapes(MINI, **size)


def test_sides():
    assert latent_shape(MINI, "video", image_size=(96, 64)) == (4, 16, 8, 12)
    assert latent_shape(MINI, "image", image_size=(None, 128)) == (4, 16, 8)
    assert latent_shape(MINI, "image", image_size=32) == (4, 4, 4)


def test_models_that_lack_streams():
    no_video = dataclasses.replace(MINI, image_autoencoder=None)
    assert latent_shape(no_video, "audio", seconds=3)[1] == 40
    with pytest.raises(ValueError, match="^frames: the model 'mini' generates no videos, .* give seconds"):
        latent_shape(no_video, "audio", frames=16)
    with pytest.raises(ValueError, match="'mini' does not generate video"):
        latent_shape(no_video, "video")
    no_audio = dataclasses.replace(MINI, audio_autoencoder=None)
    assert latent_shape(no_audio, "video", seconds=3)[1] == 19
    assert lengths(no_audio) == (16, None) and lengths(no_video) == (None, 2.56) and lengths(MINI) == (16, 2.56)
    with pytest.raises(ValueError, match="differ by at most 0.16 s"):
        lengths(no_audio, frames=16, seconds=3)


@pytest.mark.parametrize(
    ("samples", "multiple", "steps"),
    [(0, 1, 1), (1, 1, 1), (1280, 1, 1), (1281, 1, 2), (40960, 4, 32), (40961, 4, 36), (1, 4, 4)],
)
def test_samples(samples, multiple, steps):
    assert audio_steps(samples, MINI.audio_autoencoder, multiple) == steps


@pytest.fixture(scope="module")
def whole():
    return build(FOUR)


def test_generated_streams_are_equally_long(whole):
    prompt = whole.prompt("text", "two red stars")
    for size, frames, steps in (
        ({"seconds": 1.28}, 8, 16),
        ({"frames": 6}, 6, 12),
        ({"frames": 6, "seconds": 1}, 6, 14),
    ):
        out = whole.generate_latents(prompt, ["video", "audio"], steps=1, **size)
        assert (out["video"].shape[2], out["audio"].shape[2]) == (frames, steps)
        audio = whole.encode("audio", torch.rand(1, 1, 48000), 16000, seconds=size.get("seconds", 6 / 6.25))
        held = whole.generate_latents(prompt, ["video"], steps=1, held={"audio": audio}, **size)
        assert held["video"].shape[2] == frames
    waveform = whole.generate(prompt, ["audio"], steps=1, frames=6)["audio"]
    assert waveform["waveform"].shape[-1] == 12 * 1280
    with pytest.raises(ValueError, match="^frames, seconds: 4 frames last 0.64 s"):
        whole.generate(prompt, ["video"], steps=1, frames=4, seconds=3)
    with pytest.raises(ValueError, match="^seconds: nan s is out of range"):
        whole.generate(prompt, ["audio"], steps=1, seconds=math.nan)


def test_published_audio_has_the_length_that_is_asked_for():
    """The released processing makes all audio equally long, unless steps are given."""
    config = dataclasses.replace(
        FOUR, audio_autoencoder=dataclasses.replace(FOUR.audio_autoencoder, released_processing=True)
    )
    codi = build(config)
    waveform = torch.rand(1, 1, 16000) - 0.5
    assert codi.encode("audio", waveform).shape[2] == 8  # 0.64 s, the model's own
    assert codi.encode("audio", waveform, seconds=1.0).shape[2] == codi.latent_shape("audio", seconds=1.0)[1] == 14
    assert codi.encode("audio", waveform, seconds=0.3).shape[2] == 4
