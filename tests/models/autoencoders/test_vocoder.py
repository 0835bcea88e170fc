"""HiFi-GAN against the original's output (SPEC sections 5.2 and 9)."""

import pytest
import torch
from published import filled, operations, read

from codi_backend.config import CoDiConfig, VocoderConfig
from codi_backend.config.reference import audio_autoencoder_from_reference
from codi_backend.models.autoencoders import AudioAutoencoder
from codi_backend.models.autoencoders.vocoder import Vocoder

pytestmark = pytest.mark.audio


@pytest.fixture(scope="module")
def case():
    meta, tensors = read("audioldm_small")
    return filled(AudioAutoencoder(audio_autoencoder_from_reference(meta)), "audioldm."), tensors


@torch.inference_mode()
def test_waveform(case):
    autoencoder, golden = case
    for waveform in (autoencoder.vocoder(golden["out/decoded_mel"]), autoencoder.decode(golden["out/mean"])):
        torch.testing.assert_close(waveform, golden["out/vocoder_wave"], atol=1e-4, rtol=0)


def test_published_length():
    vocoder = Vocoder(VocoderConfig(), 64, device="meta")
    assert vocoder(torch.zeros(2, 1, 1024, 64, device="meta")).shape == (2, 1, 163872)


def test_layers_come_from_operations():
    made = operations("Conv1d", "ConvTranspose1d")
    assert not list(Vocoder(VocoderConfig(channels=32), 8, operations=made).parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision(case, dtype):
    autoencoder, golden = case
    vocoder = Vocoder(autoencoder.config.vocoder, 64, dtype=dtype)
    vocoder.load_state_dict(autoencoder.vocoder.state_dict())
    waveform = vocoder(golden["out/decoded_mel"].to(dtype))
    assert waveform.dtype == dtype and waveform.isfinite().all()
    assert (waveform.float() - golden["out/vocoder_wave"]).abs().max() < 0.05


def test_gradients(case):
    vocoder = case[0].vocoder
    log_mel = case[1]["out/decoded_mel"][:, :, :20].requires_grad_()
    vocoder(log_mel).square().mean().backward()
    assert log_mel.grad.abs().max() > 0
    assert all(parameter.grad.abs().max() > 0 for parameter in vocoder.parameters())
    vocoder.zero_grad()


def test_stored_configuration(case):
    config = CoDiConfig(audio_autoencoder=case[0].config)
    assert CoDiConfig.from_json(config.to_json()) == config


def test_unsupported_configurations():
    meta, _ = read("audioldm_small")
    meta["hifigan"]["resblock_dilation_sizes"][1] = [1, 3, 7]
    with pytest.raises(ValueError, match="dilations"):
        audio_autoencoder_from_reference(meta)
