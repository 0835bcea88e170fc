"""The audio prompt encoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detweights import det_uniform, fill_
from safetensors.torch import load_file

from codi_backend.checkpoints.encoder_names import to_reference
from codi_backend.config.reference import clap_from_reference
from codi_backend.models.autoencoders import resample
from codi_backend.models.encoders.audio import AudioEncoder, fit, log_mel

pytestmark = [pytest.mark.audio, pytest.mark.usefixtures("audio_library")]
GOLDEN = Path(__file__).parents[2] / "golden" / "prompts"


@pytest.fixture(scope="module")
def config():
    return clap_from_reference(json.loads((GOLDEN / "clap_small.json").read_text())["config"])


@pytest.fixture(scope="module")
def encoder(config):
    return fill_(AudioEncoder(config), "", lambda key: to_reference("audio", key))


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "clap_small.safetensors")


@pytest.fixture(scope="module")
def long_audio():
    """10.23 s at 16 kHz by the rule in `clap_small.json`."""
    samples = 163680
    t = np.arange(samples) / 16000
    noise = det_uniform("long", 12 * samples).reshape(12, -1).astype(np.float64).sum(0) - 6
    wave = 0.4 * np.sin(2 * np.pi * (300 + 200 * t) * t) + 0.2 * np.sin(2 * np.pi * 2500 * t) + 0.05 * noise
    return torch.from_numpy(wave.astype(np.float32))[None, None]


def encode(encoder, waveform, sample_rate=16000):
    with torch.inference_mode():
        return encoder(waveform, sample_rate)


@pytest.mark.parametrize("name", ["short", "odd"])
def test_embeddings(encoder, golden, name):
    out = encode(encoder, golden[f"{name}/in"])
    torch.testing.assert_close(out, golden[f"{name}/out"], atol=1e-5, rtol=0)


def test_unconditional_is_silence(encoder, golden):
    torch.testing.assert_close(encode(encoder, torch.zeros(1, 1, 16000)), golden["zeros/out"], atol=1e-5, rtol=0)


def test_long_audio(encoder, config, golden, long_audio):
    """The original's random crop gives its embedding; our central crop gives another one."""
    start = int(golden["long/crop_start_48k"])
    part = resample(long_audio, 16000, 48000)[..., start : start + config.samples]
    with torch.inference_mode():
        out = encoder.embed(log_mel(part, config.mel))
    torch.testing.assert_close(out, golden["long/out"], atol=1e-5, rtol=0)
    ours = encode(encoder, long_audio)
    assert torch.equal(ours, encode(encoder, long_audio))
    assert not torch.allclose(ours, out, atol=1e-4) and torch.allclose(ours, out, atol=0.05)


def test_log_mel(config, golden):
    """Decibels; those of nearly silent bands depend on how the transform rounds."""
    audio = fit(resample(golden["short/in"][:1], 16000, 48000), config.samples)
    torch.testing.assert_close(log_mel(audio, config.mel), golden["short/logmel_first"], atol=7e-3, rtol=0)


def test_fit():
    audio = torch.arange(1.0, 4.0)[None, None]
    assert fit(audio, 8).tolist() == [[[1, 2, 3, 1, 2, 3, 0, 0]]]
    assert fit(audio, 5).tolist() == [[[1, 2, 3, 0, 0]]]
    assert fit(audio, 3).tolist() == [[[1, 2, 3]]]
    assert fit(audio, 1).tolist() == [[[2]]]


def test_sample_rates(encoder, golden):
    audio = golden["odd/in"]
    at_44100 = resample(audio, 16000, 44100)
    torch.testing.assert_close(encode(encoder, at_44100, 44100), encode(encoder, audio), atol=2e-2, rtol=0)
    assert encode(encoder, torch.ones(2, 1, 1)).isfinite().all()


def test_batch_items_are_independent(encoder, golden):
    both = golden["short/in"]
    torch.testing.assert_close(encode(encoder, both)[1:], encode(encoder, both[1:]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(encoder, config, golden, dtype):
    half = AudioEncoder(config, dtype=dtype)
    half.load_state_dict(encoder.state_dict())
    for audio in (golden["odd/in"], torch.zeros(1, 1, 100)):
        out = encode(half, audio)
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), encode(encoder, audio), atol=2e-2, rtol=0)


def test_gradients(encoder, golden):
    audio = golden["odd/in"].requires_grad_()
    encoder(audio, 16000)[..., 0].sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad and not name.startswith("unused."):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert audio.grad.abs().max() > 0
    encoder.zero_grad()


def test_errors(encoder):
    audio = torch.rand(1, 1, 1000)

    def fails(message, waveform=audio, sample_rate=16000):
        with pytest.raises(ValueError, match=message):
            encoder(waveform, sample_rate)

    fails("average the channels", audio.expand(1, 2, 1000))
    fails("mono", audio[0])
    fails("is empty .*at least one sample", audio[..., :0])
    fails("is empty .*at least one sample", audio[:0])
    fails("not finite", audio * torch.nan)
    fails("sample_rate: 0 is out of range", sample_rate=0)
