"""The vocoder's stage: who learns from what, and on which segments."""

import dataclasses

import pytest
import tiny
import torch

from codi_backend.models.autoencoders import AudioAutoencoder
from codi_backend.training.loop import Options, train
from codi_backend.training.vocoder import VocoderStage

VOCODER = tiny.VOCODER


def build(vocoder=VOCODER):
    torch.manual_seed(0)
    return VocoderStage(AudioAutoencoder(dataclasses.replace(tiny.CONFIG.audio_autoencoder, vocoder=vocoder)))


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters()}


def test_vocoder_and_discriminator_learn_and_the_vae_does_not(tmp_path):
    stage = build()
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    record = train(stage, Options(steps=2, batch_size=2, warmup=0, clip=500.0), tmp_path, lambda line: None)
    changed = tiny.changed(before, dict(stage.named_parameters()))
    assert changed == {name for name in before if name.startswith(("autoencoder.vocoder.", "discriminator."))}
    assert set(record["final"]) >= {"mel", "spectrum", "features", "adversarial", "discriminator_loss"}


def test_each_side_sees_the_other_as_a_constant():
    stage = build()
    batch = stage.batch(0, 2, 0)
    stage(batch, torch.Generator().manual_seed(0))[0].backward()
    learned = gradients(stage.discriminator)
    stage.zero_grad()

    log_mel, real = stage._segments(batch, torch.Generator().manual_seed(0))
    judged = zip(stage.discriminator(real), stage.discriminator(stage.autoencoder.vocoder(log_mel)), strict=True)
    sum(((1 - r) ** 2).mean() + (f**2).mean() for (r, _), (f, _) in judged).backward()
    for name, gradient in gradients(stage.discriminator).items():
        torch.testing.assert_close(learned[name], gradient, msg=name)


def test_vocoder_learns_to_fool():
    stage = build()
    batch = stage.batch(0, 2, 0)
    vocoder = stage.autoencoder.vocoder
    optimizer = torch.optim.SGD(vocoder.parameters(), 1e-5)

    def step():
        optimizer.zero_grad()
        loss, figures = stage(batch, torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
        return sum(
            w * figures[name] for name, w in (("mel", 45), ("spectrum", 15), ("features", 2), ("adversarial", 1))
        )

    first = step()
    assert step() < first


def test_log_mels_belong_to_the_waveforms():
    stage = build()
    waveforms = stage.batch(0, 4, 3)[..., :16100]  # not whole latent steps
    log_mel, real = stage._segments(waveforms, torch.Generator().manual_seed(1))
    assert log_mel.shape == (4, 1, 50, 64) and real.shape == (4, 1, 8000)
    inner = slice(5, 45)  # frames whose windows do not reach over the ends of the segment
    difference = (stage.autoencoder.mel(real) - log_mel)[:, :, inner].abs().amax((1, 2, 3))
    assert difference[2:].max() < 1e-3  # of the waveforms themselves
    assert difference[:2].min() > 0.1  # through the VAE, which is not trained


def test_silence_gives_finite_gradients():
    stage = build()
    loss, _ = stage(torch.zeros(2, 1, 10240), torch.Generator().manual_seed(0))
    loss.backward()
    assert loss < 1000
    assert all(p.grad.isfinite().all() for p in stage.autoencoder.vocoder.parameters())


def test_vocoder_is_needed():
    with pytest.raises(ValueError, match="no vocoder to train: give the audio autoencoder's configuration one"):
        build(None)


def test_vocoder_must_fit_the_mel():
    with pytest.raises(ValueError, match="makes 80 samples of a frame that lasts 160"):
        build(dataclasses.replace(VOCODER, rates=(5, 4, 2, 2)))
