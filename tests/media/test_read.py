"""Files of images, audio and videos as tensors."""

import wave

import av
import numpy as np
import pytest
import torch
from PIL import Image

from codi_backend.media.read import read_audio, read_image, read_text, read_video
from codi_backend.media.write import save_video, save_wav

RAMP = torch.linspace(0, 1, 8)


def levels(frames):
    """A video whose frames have one level of grey each."""
    return RAMP[:frames, None, None].expand(3, frames, 32, 48)


def tone(samples, rate, frequency=440.0):
    return 0.5 * torch.sin(2 * torch.pi * frequency * torch.arange(samples) / rate)[None]


@pytest.fixture(scope="module")
def video_file(tmp_path_factory):
    """Eight frames at 4 a second, and two seconds of audio."""
    path = tmp_path_factory.mktemp("video") / "a:b.mp4"  # the colon is not an address
    save_video(path, levels(8), 4.0, tone(32000, 16000), 16000)
    return path


def shown(pixels):
    """Which of the eight levels each frame has."""
    return (pixels.mean((0, 2, 3)) * 7).round().int().tolist()


def test_text(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeff zwei Köpfe\n", encoding="utf-8")
    assert read_text(tmp_path / "a.txt") == "zwei Köpfe"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "RGBA", "LA", "I;16", "I", "F"])
def test_images_of_any_mode(tmp_path, mode):
    white = {"I;16": 65535, "I": 65535, "F": 1.0}.get(mode)
    if white is None:
        image = Image.new("RGB", (6, 4), "white").convert(mode)
        image.paste(Image.new("RGB", (3, 4), "black").convert(mode), (0, 0))
    else:
        values = np.zeros((4, 6), {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        values[:, 3:] = white
        image = Image.fromarray(values)
        assert image.mode == mode
    image.save(tmp_path / "a.tiff")
    pixels = read_image(tmp_path / "a.tiff")
    assert pixels.shape == (3, 4, 6)
    torch.testing.assert_close(pixels[..., :3], torch.zeros(3, 4, 3), atol=0.02, rtol=0)
    torch.testing.assert_close(pixels[..., 3:], torch.ones(3, 4, 3), atol=0.02, rtol=0)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 102)).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png")[:, 0, 0], torch.tensor([1, 0.6, 0.6]))


def test_images_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 255, 255))
    image.save(tmp_path / "a.png", exif=exif)
    pixels = read_image(tmp_path / "a.png")
    assert pixels.shape == (3, 4, 2) and pixels[0, 0, 1] == 1 and pixels.sum() == 3


def test_large_images_are_reduced(tmp_path):
    Image.new("L", (4200, 4100), 255).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (3, 2050, 2100)


@pytest.mark.parametrize(("rate", "read"), [(8000, 8000), (44100, 44100), (16001, 48000), (2000, 48000)])
def test_audio_of_any_rate(tmp_path, rate, read):
    save_wav(tmp_path / "a.wav", tone(rate, rate), rate)
    samples, sample_rate = read_audio(tmp_path / "a.wav")
    assert sample_rate == read and abs(samples.shape[1] - read) < 50
    middle = slice(read // 4, read // 2)
    torch.testing.assert_close(samples[:, middle], tone(read, read)[:, middle], atol=0.02, rtol=0)


def test_channels_are_averaged(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.tile(np.int16([16384, -8192]), 1000).tobytes())
    samples, _ = read_audio(tmp_path / "a.wav")
    torch.testing.assert_close(samples, torch.full((1, 1000), 0.125))


def test_audio_of_a_video(video_file):
    samples, rate = read_audio(video_file)
    assert rate == 16000 and 32000 <= samples.shape[1] < 33024  # AAC comes in blocks of 1024
    torch.testing.assert_close(samples[:, 4000:28000], tone(32000, 16000)[:, 4000:28000], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("frames", "rate", "expected"),
    [
        (8, None, [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, 4.0, [0, 1, 2, 3, 4, 5, 6, 7]),
        (4, None, [0, 2, 4, 6]),
        (3, 4.0, [0, 1, 2]),
        (4, 2.0, [0, 2, 4, 6]),
        (5, 1.0, [0, 4, 7, 7, 7]),
        (16, None, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]),
    ],
)
def test_frames_of_a_video(video_file, frames, rate, expected):
    pixels = read_video(video_file, frames, rate)
    assert pixels.shape == (3, frames, 256, 384) and 0 <= pixels.min() and pixels.max() <= 1
    assert shown(pixels) == expected


def test_animated_gifs_are_videos(tmp_path):
    frames = [Image.new("L", (8, 8), round(255 * float(level))) for level in RAMP[:4]]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 100, 300, 100])
    assert shown(read_video(tmp_path / "a.gif", 6)) == [0, 1, 2, 2, 2, 3]


def test_large_frames_are_reduced(tmp_path):
    save_video(tmp_path / "a.mp4", torch.zeros(3, 1, 1040, 600), 4.0)
    assert read_video(tmp_path / "a.mp4", 2).shape == (3, 2, 887, 512)


def test_videos_stand_upright(tmp_path):
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, :64] = 255
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("h264", 4)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.set_display_rotation(90)  # to be turned counterclockwise
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    pixels = read_video(tmp_path / "a.mp4", 1)[:, 0]
    assert pixels.shape == (3, 128, 64)
    assert pixels[:, :60].mean() < 0.05 and pixels[:, 68:].mean() > 0.95


def write(path, content):
    path.write_bytes(content)


def float_wav(path, samples):
    data = np.float32(samples).tobytes()
    head = np.uint16([3, 1]).tobytes() + np.uint32([8000, 32000]).tobytes() + np.uint16([4, 32]).tobytes()
    body = b"WAVEfmt " + np.uint32(16).tobytes() + head + b"data" + np.uint32(len(data)).tobytes() + data
    write(path, b"RIFF" + np.uint32(len(body)).tobytes() + body)


MISTAKES = {
    "missing": (lambda path: None, "There is no file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: write(path, b""), "is empty"),
    "nonsense": (lambda path: write(path, bytes(range(256)) * 40), "cannot be read as |not a text file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("read", [read_text, read_image, read_audio, lambda path: read_video(path, 4)])
def test_mistakes_of_every_kind(tmp_path, read, mistake):
    make, message = MISTAKES[mistake]
    make(tmp_path / "x")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        read(tmp_path / "x")
    assert str(tmp_path / "x") in str(error.value) and "\n" not in str(error.value)


def nan_image(path):
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(path, "TIFF")


def torn(path):
    Image.effect_noise((64, 64), 50).save(path, "PNG")
    write(path, path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("make", "read", "message"),
    [
        (nan_image, read_image, "not finite"),
        (torn, read_image, "cannot be read as an image"),
        (lambda path: Image.new("1", (20000, 10000)).save(path, "PNG"), read_image, "enormous: bring it below"),
        (lambda path: Image.new("L", (9, 9)).save(path, "PNG"), read_audio, "has no audio track"),
        (lambda path: float_wav(path, [0, np.nan, 0]), read_audio, "not finite"),
        (lambda path: float_wav(path, []), read_audio, "x.* (is empty|cannot be read)"),
        (lambda path: float_wav(path, np.zeros(601 * 8000)), read_audio, "more than 10 minutes"),
        (lambda path: float_wav(path, [0.5] * 99), lambda path: read_video(path, 4), "has no video track"),
    ],
)
def test_mistakes(tmp_path, make, read, message):
    make(tmp_path / "x")
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path / "x")
    assert "\n" not in str(error.value)


def test_long_videos_are_refused(tmp_path):
    save_video(tmp_path / "a.mp4", torch.zeros(3, 7, 2, 2), 0.01)
    with pytest.raises(ValueError, match="more than 10 minutes"):
        read_video(tmp_path / "a.mp4", 4)
