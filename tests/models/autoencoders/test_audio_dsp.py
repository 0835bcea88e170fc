"""Audio by torch alone, against torchaudio and other libraries that are installed."""

import math
import sys

import numpy as np
import pytest
import torch

from codi_backend.config import MelConfig
from codi_backend.models.autoencoders import audio_dsp
from codi_backend.models.autoencoders.audio_dsp import griffin_lim, mel_filter_bank, resample

pytestmark = pytest.mark.audio
RATES = [(44100, 16000), (16000, 44100), (48000, 16000), (16000, 48000), (22050, 16000), (8000, 48000), (11025, 16000)]
ODD_RATES = [(44099, 16000), (7919, 16000), (7919, 48000), (16000, 7919)]
MELS = [
    MelConfig(),
    MelConfig(sample_rate=48000, n_fft=1024, hop=480, bands=64, f_min=50, f_max=14000),  # CLAP's
    MelConfig(sample_rate=22050, n_fft=1024, hop=256, bands=80, f_min=0, f_max=8000),
]


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


@pytest.fixture
def both(monkeypatch):
    """Call a function without and with torchaudio."""
    pytest.importorskip("torchaudio", reason="torchaudio is not installed: there is nothing to compare with")
    assert audio_dsp._torchaudio()

    def call(function, *arguments):
        by_torchaudio = function(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(audio_dsp, "_torchaudio", lambda: None)
            return function(*arguments), by_torchaudio

    return call


@pytest.mark.parametrize(
    ("rates", "tolerance"), [(rates, 5e-5) for rates in RATES] + [(rates, 2e-4) for rates in ODD_RATES]
)
def test_resampling_is_torchaudio_s(both, rates, tolerance):
    for length in (1, 7, 4410, 16001):
        torch.testing.assert_close(*both(resample, noise(2, 1, length), *rates), atol=tolerance, rtol=0)
    # In double precision torchaudio rounds nothing.
    torch.testing.assert_close(*both(resample, noise(3000, dtype=torch.float64), *rates), atol=1e-9, rtol=0)


def test_gradients_of_resampling_are_torchaudio_s(both):
    def gradient(dtype):
        samples = noise(1, 1, 500, dtype=dtype).requires_grad_()
        resample(samples, 44100, 16000).square().sum().backward()
        return samples.grad

    got, expected = both(gradient, torch.float32)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", MELS)
def test_filter_bank_is_torchaudio_s(both, config):
    bank, expected = both(mel_filter_bank, config)
    assert bank.shape == (513, config.bands) and bank.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(bank, expected, atol=1e-5 * expected.max().item(), rtol=0)


@pytest.mark.parametrize(("iterations", "tolerance"), [(1, 1e-6), (8, 2e-3), (32, 5e-3)])
def test_phases_are_torchaudio_s(both, iterations, tolerance):
    decay = torch.exp(-torch.arange(20480) / 4000)
    tone = 0.5 * torch.sin(0.1 * torch.arange(20480)) * decay
    for audio in (tone[None], 0.5 * noise(2, 20480)):
        window = torch.hann_window(1024)
        magnitude = torch.stft(audio, 1024, 160, window=window, return_complex=True).abs()
        wave, expected = both(griffin_lim, magnitude, window, 160, 20480, iterations)
        torch.testing.assert_close(wave, expected, atol=tolerance * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("rates", [*RATES, *ODD_RATES])
def test_resampling_is_scipy_s(without_torchaudio, rates):
    """A polyphase filter with the same impulse response, sampled at the least common multiple of the rates."""
    signal = pytest.importorskip("scipy.signal", reason="SciPy is not installed")
    low, high = sorted(rates)
    ratio = round(2000 * math.sqrt(high / low)) if rates in ODD_RATES else None
    low, high = audio_dsp.Fraction(low, high).limit_denominator(ratio or high).as_integer_ratio()
    up, down = (low, high) if rates[1] < rates[0] else (high, low)
    cutoff = 0.99 / max(up, down)
    reach = math.ceil(6 / cutoff)
    time = (np.arange(-reach, reach + 1) * cutoff).clip(-6, 6)
    taps = np.sinc(time) * np.cos(time * np.pi / 12) ** 2 * cutoff
    samples = noise(4000)
    expected = signal.resample_poly(samples.double().numpy(), up, down, window=taps)
    got = resample(samples, *rates)
    torch.testing.assert_close(got, torch.from_numpy(expected).float(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("config", MELS)
def test_filter_bank_is_transformers_(without_torchaudio, config):
    utils = pytest.importorskip("transformers.audio_utils", reason="transformers is not installed")
    settings = (513, config.bands, config.f_min, config.f_max, config.sample_rate)
    expected = torch.from_numpy(utils.mel_filter_bank(*settings, norm="slaney", mel_scale="slaney")).float()
    torch.testing.assert_close(mel_filter_bank(config), expected, atol=1e-8, rtol=1e-6)


def test_phases_fit_the_magnitudes(audio_library):
    """The spectrogram of the waveform is close to the given one."""
    decay = torch.exp(-torch.arange(20480) / 4000)
    tone = (torch.sin(0.1 * torch.arange(20480)) * decay)[None]
    window = torch.hann_window(1024)

    def magnitudes(audio):
        return torch.stft(audio, 1024, 160, window=window, return_complex=True).abs()

    target = magnitudes(tone)
    errors = [(magnitudes(griffin_lim(target, window, 160, 20480, n)) - target).norm() / target.norm() for n in (1, 32)]
    assert errors[1] < 0.2 and errors[1] < 0.7 * errors[0]


def test_a_broken_torchaudio_is_ignored(monkeypatch, tmp_path, without_torchaudio):
    """One that was built for another CUDA raises RuntimeError when it is imported."""
    expected = resample(noise(1000), 44100, 16000)
    monkeypatch.delitem(sys.modules, "torchaudio")
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise RuntimeError('different CUDA versions')")
    monkeypatch.syspath_prepend(tmp_path)
    assert torch.equal(resample(noise(1000), 44100, 16000), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_filtered_in_single_precision(audio_library, dtype):
    samples = noise(1, 1, 2000).to(dtype)
    got = resample(samples, 44100, 16000)
    assert got.dtype == dtype
    assert torch.equal(got, resample(samples.float(), 44100, 16000).to(dtype))


def test_bad_samples_and_rates(audio_library):
    with pytest.raises(ValueError, match="^Audio samples are numbers in -1..1, not torch.int16: divide them by"):
        resample(torch.zeros(1, 100, dtype=torch.int16), 44100, 16000)
    for rates in ((0, 16000), (16000, -1)):
        with pytest.raises(ValueError, match=f"^A sample rate of {min(rates)} Hz is impossible; give a positive one.$"):
            resample(torch.zeros(1, 100), *rates)


def test_empty_audio_stays_empty(audio_library):
    assert resample(torch.zeros(1, 1, 0), 44100, 16000).shape == (1, 1, 0)
    assert resample(torch.zeros(0, 1, 441), 44100, 16000).shape == (0, 1, 160)
