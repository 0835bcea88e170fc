"""The audio autoencoder."""

import math

import pytest
import torch
from tiny import CONFIG

from codi_backend.models.autoencoders import AudioAutoencoder, resample

pytestmark = [pytest.mark.audio, pytest.mark.usefixtures("audio_library")]


@pytest.fixture(scope="module")
def autoencoder(codi):
    return codi.autoencoders["audio"]


def tone(frequency, samples, rate=16000):
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(samples) / rate)[None, None]


@torch.no_grad()
def test_shapes(autoencoder):
    latents = autoencoder.encode(tone(440, 20480).expand(2, 1, -1))
    assert latents.shape == (2, 8, 16, 8)
    assert autoencoder.decode_mel(latents).shape == (2, 1, 128, 64)
    wave = autoencoder.decode(latents)
    assert wave.shape == (2, 1, 20480)
    assert wave.isfinite().all() and wave.abs().max() <= 1


@torch.no_grad()
def test_steps_cut_and_fill(autoencoder):
    audio = tone(440, 12800)
    whole = autoencoder.encode(audio)
    assert torch.equal(autoencoder.encode(audio, steps=10), whole)
    assert torch.equal(autoencoder.encode(audio, steps=4), autoencoder.encode(audio[..., : 4 * 1280]))
    filled = torch.nn.functional.pad(audio, (0, 2 * 1280))
    assert torch.equal(autoencoder.encode(audio, steps=12), autoencoder.encode(filled))


def test_mels_are_normalised_folded_and_unfolded(echo):
    autoencoder = AudioAutoencoder(CONFIG.audio_autoencoder)
    autoencoder.vae = echo
    mel = torch.randn(2, 1, 128, 64, generator=torch.Generator().manual_seed(0)) * 2 - 5
    folded = autoencoder.posterior(mel).mode()
    assert folded.shape == (2, 16, 32, 16)
    assert folded.mean().abs() < 0.02 and abs(folded.std() - 1) < 0.02
    torch.testing.assert_close(autoencoder.decode_mel(folded), mel)


@torch.no_grad()
def test_padding_is_silence(autoencoder):
    short = tone(440, 3000)
    padded = torch.nn.functional.pad(short, (0, 3 * 1280 - 3000))
    assert autoencoder.encode(short).shape[2] == 3
    assert torch.equal(autoencoder.encode(short), autoencoder.encode(padded))


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 100, 1281])
def test_the_shortest_audio(autoencoder, samples):
    assert autoencoder.encode(tone(440, samples)).shape[2] == -(-samples // 1280)


@torch.no_grad()
def test_encoding_is_deterministic(autoencoder):
    audio = tone(440, 12800)
    assert torch.equal(autoencoder.encode(audio), autoencoder.encode(audio))
    sampled = [autoencoder.encode(audio, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(sampled[0], sampled[1]) and not torch.equal(sampled[0], sampled[2])


@torch.no_grad()
def test_decoding_is_deterministic(autoencoder):
    latents = torch.randn(1, 8, 4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(autoencoder.decode(latents), autoencoder.decode(latents))


@pytest.mark.parametrize("shape", [(1, 2, 1600), (1, 1600), (1600,)])
def test_only_mono(autoencoder, shape):
    with pytest.raises(ValueError, match="must be mono.*average its channels"):
        autoencoder.encode(torch.zeros(shape))


def test_empty_audio(autoencoder):
    with pytest.raises(ValueError, match="audio is empty: give at least one sample"):
        autoencoder.encode(torch.zeros(1, 1, 0))


@torch.no_grad()
def test_encoding_resamples(autoencoder):
    native = autoencoder.encode(tone(440, 12800))
    assert torch.equal(autoencoder.encode(tone(440, 12800), 16000), native)
    other = autoencoder.encode(tone(440, 35280, 44100), 44100)
    assert other.shape == native.shape
    assert (other - native)[:, :, 1:-1].abs().mean() < 0.02 * native.std()


@pytest.mark.parametrize("rate", [8000, 32000, 44100, 48000])
def test_resampling_keeps_the_wave(rate):
    got = resample(tone(440, rate // 2, rate), rate, 16000)
    assert got.shape == (1, 1, 8000)
    torch.testing.assert_close(got[..., 200:-200], tone(440, 8000)[..., 200:-200], atol=5e-3, rtol=0)


def test_resampling_to_the_same_rate_changes_nothing():
    audio = tone(440, 1000)
    assert resample(audio, 16000, 16000) is audio
