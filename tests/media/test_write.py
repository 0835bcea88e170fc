"""Tensors as files and images."""

import math
import wave

import av
import numpy as np
import pytest
import torch

from codi_backend.config import MelConfig
from codi_backend.media.write import save_video, save_wav, spectrogram_image, to_pil
from codi_backend.models.autoencoders import LogMel


def read(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
        return torch.from_numpy(samples).float()[None], file.getframerate()


def tone(frequency, samples=16000):
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(samples) / 16000)[None]


@pytest.mark.parametrize("rate", [16000, 44100])
def test_wav_round_trip(tmp_path, rate):
    waveform = tone(440)
    save_wav(tmp_path / "a.wav", waveform, rate)
    again, read_rate = read(tmp_path / "a.wav")
    assert read_rate == rate
    torch.testing.assert_close(again, waveform, atol=1 / 32767, rtol=0)


def test_wav_clips(tmp_path):
    save_wav(tmp_path / "a.wav", torch.tensor([[-3.0, -1.0, 0.0, 1.0, 3.0]]), 16000)
    assert read(tmp_path / "a.wav")[0].tolist() == [[-1, -1, 0, 1, 1]]


def test_image():
    pixels = torch.zeros(3, 4, 6)
    pixels[0] = 1
    pixels[1, 1, 5] = 0.5
    pixels[2, 2, 3] = 7
    image = to_pil(pixels)
    assert (image.size, image.mode) == ((6, 4), "RGB")
    assert [image.getpixel(at) for at in ((0, 0), (5, 1), (3, 2))] == [(255, 0, 0), (255, 128, 0), (255, 0, 255)]


def test_spectrogram():
    mel = LogMel(MelConfig())
    waveform = torch.cat([torch.zeros(1, 8000), tone(300, 8000)], 1)
    low = np.asarray(spectrogram_image(mel, waveform), int).sum(2)
    high = np.asarray(spectrogram_image(mel, tone(3000)), int).sum(2)
    assert low.shape == (64, 100)
    assert low[:, 60:].max() > low[:, :40].max() + 200
    assert high[:, 50].argmax() < 32 < low[:, 80].argmax()


def test_silence_is_dark():
    assert np.asarray(spectrogram_image(LogMel(MelConfig()), torch.zeros(1, 1600))).max() < 40


@pytest.mark.parametrize(
    ("height", "width", "written"), [(64, 64, (256, 256)), (33, 65, (264, 520)), (300, 400, (300, 400))]
)
def test_videos_are_enlarged_by_whole_numbers(tmp_path, height, width, written):
    pixels = torch.zeros(3, 3, height, width)
    pixels[0, 1:, :, width // 2 :] = 0.8
    save_video(tmp_path / "a.mp4", pixels, 6.25)
    with av.open(str(tmp_path / "a.mp4")) as file:
        (stream,) = file.streams
        assert (stream.codec_context.name, stream.format.name, stream.average_rate) == ("h264", "yuv420p", 6.25)
        assert float(stream.duration * stream.time_base) == pytest.approx(3 / 6.25)
        frames = torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(stream)])) / 255
    assert frames.shape == (3, *written, 3)
    zoom = written[0] // height
    expected = pixels.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3).permute(1, 2, 3, 0)
    assert (frames - expected).abs().mean() < 0.02


def test_videos_have_their_audio(tmp_path):
    waveform = tone(440, 8000)
    save_video(tmp_path / "a.mp4", torch.rand(3, 2, 64, 64), 4.0, waveform, 16000)
    with av.open(str(tmp_path / "a.mp4")) as file:
        video, audio = file.streams
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 16000, 1)
        decoded = np.concatenate([frame.to_ndarray() for frame in file.decode(audio)], 1)[:, :8000]
    assert decoded.shape == (1, 8000)
    assert np.corrcoef(decoded[0, 1000:7000], waveform[0, 1000:7000])[0, 1] > 0.99
