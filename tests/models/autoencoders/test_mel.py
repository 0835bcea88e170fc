"""Log-mel spectrograms and their inversion."""

import math

import numpy as np
import pytest
import torch

from codi_backend.config import AudioAutoencoderConfig, MelConfig
from codi_backend.data import Scene
from codi_backend.data.audio import render_audio
from codi_backend.data.world import PITCHES
from codi_backend.models.autoencoders import AudioAutoencoder, LogMel, resample

pytestmark = [pytest.mark.audio, pytest.mark.usefixtures("audio_library")]
SAMPLES = 10240


@pytest.fixture(scope="module")
def mel(audio_library):
    return LogMel(MelConfig(floor=3e-3))


def note(colour):
    scene = Scene(colour, "circle", 1, "slow", 0.1, 0.5, ((20, 20, 15),))
    return torch.from_numpy(render_audio(scene))[None, None, :SAMPLES]


def pitch(wave):
    wave = wave.flatten().numpy()
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return np.argmax(spectrum) * 16000 / len(wave)


@pytest.mark.parametrize("samples", [1600, 40960, 41119])
def test_shape(mel, samples):
    assert mel(torch.zeros(2, 1, samples)).shape == (2, 1, samples // 160, 64)


def test_silence_is_the_floor(mel):
    assert torch.equal(mel(torch.zeros(1, 1, 1600)), torch.full((1, 1, 10, 64), math.log(3e-3)))


def test_bands_rise_with_the_pitch(mel):
    loudest = [mel(note(colour))[0, 0, 15].argmax() for colour in PITCHES]
    assert loudest == sorted(loudest) and loudest[0] < loudest[-1]


def test_time_comes_before_frequency(mel):
    levels = mel(note("red"))[0, 0].amax(1)
    assert (levels[:5] == math.log(3e-3)).all()
    assert 10 <= levels.argmax() <= 16


def test_twice_as_loud_is_log_2_more(mel):
    single, double = mel(note("blue")), mel(2 * note("blue"))
    audible = single > -4
    torch.testing.assert_close((double - single)[audible], torch.full((int(audible.sum()),), math.log(2)))


@pytest.mark.parametrize("colour", PITCHES)
def test_inversion_keeps_the_pitch(mel, colour):
    wave = mel.invert(mel(note(colour)))
    assert wave.shape == (1, 1, SAMPLES)
    assert pitch(wave) == pytest.approx(PITCHES[colour], rel=0.04)  # the two closest are 12% apart


def test_inversion_in_half_precision_keeps_the_pitch(mel):
    wave = LogMel(mel.config).half().invert(mel(note("blue")).half())
    assert wave.dtype == torch.float32
    assert pitch(wave) == pytest.approx(PITCHES["blue"], rel=0.04)


def test_inversion_keeps_onset_and_loudness(mel):
    wave = mel.invert(mel(note("green"))).flatten()
    assert wave[:1000].abs().max() < 0.05 * wave.abs().max()
    assert 0.25 < wave.abs().max() < 1


def test_inversion_is_deterministic(mel):
    spectrogram = mel(note("red"))
    assert torch.equal(mel.invert(spectrogram, 2), mel.invert(spectrogram, 2))


def test_silence_stays_silent(mel):
    wave = mel.invert(torch.full((1, 1, 32, 64), math.log(3e-3)), 2)
    assert wave.isfinite().all() and wave.abs().max() < 1e-3


def test_constants_are_real_on_the_meta_device():
    with torch.device("meta"):
        autoencoder = AudioAutoencoder(AudioAutoencoderConfig(channels=(32, 32)))
    assert all(p.is_meta for p in autoencoder.parameters())
    assert autoencoder.mel.window.device.type == autoencoder.mel.bank.device.type == "cpu"


def test_constants_are_not_stored(mel):
    assert not mel.state_dict()


@pytest.mark.parametrize("rate", [44100, 44099, 7919, 1000003])
def test_any_rate_can_be_resampled(rate):
    """Without filters that fill the memory: 44 099 and 16 000 have no common divisor."""
    tone = torch.sin(2 * math.pi * 440 * torch.arange(rate // 2) / rate)
    resampled = resample(tone, rate, 16000)
    assert abs(len(resampled) - 8000) <= 1
    expected = torch.sin(2 * math.pi * 440 * torch.arange(8000) / 16000)
    torch.testing.assert_close(resampled[200:7800], expected[200:7800], atol=0.01, rtol=0)
