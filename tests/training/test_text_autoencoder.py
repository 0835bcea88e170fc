"""Training the text autoencoder."""

import dataclasses

import pytest
import tiny
import torch
from torch.nn import functional as F

from codi_backend.config import CoDiConfig, TextAutoencoderConfig, TransformerConfig
from codi_backend.data.captions import caption_words
from codi_backend.training.loop import Options, train
from codi_backend.training.text_autoencoder import TextAutoencoderStage

WORDS = caption_words()
SIZES = {"positions": 32, "width": 32, "hidden": 64, "layers": 1, "heads": 2}
CONFIG = CoDiConfig(
    text_autoencoder=TextAutoencoderConfig(
        latent_dim=8,
        words=WORDS,
        greedy=True,
        encoder=TransformerConfig(len(WORDS) + 4, **SIZES),
        decoder=TransformerConfig(len(WORDS) + 3, **SIZES),
    )
)


def make(**options):
    torch.manual_seed(0)
    return TextAutoencoderStage(CONFIG, **options)


def texts(stage, step, size, seed=0):
    words = stage.autoencoder.vocabulary
    return [words.text(ids.tolist()) for ids in stage.batch(step, size, seed)[1]]


@pytest.mark.parametrize("text", [None, dataclasses.replace(CONFIG.text_autoencoder, words=None)])
def test_a_list_of_words_is_needed(text):
    with pytest.raises(ValueError, match="give TextAutoencoderConfig a list of words"):
        TextAutoencoderStage(dataclasses.replace(CONFIG, text_autoencoder=text))


def test_batches_follow_from_their_arguments():
    stage = make()
    batch = stage.batch(3, 16, 5)
    assert all(map(torch.equal, batch, make(free_nats=2).batch(3, 16, 5)))
    assert texts(stage, 3, 16, 5) != texts(stage, 4, 16, 5) != texts(stage, 3, 16, 6)
    assert torch.equal(stage.autoencoder.vocabulary.tokenize(texts(stage, 3, 16, 5)), batch[0])


def test_captions_are_full_and_partial():
    made = texts(make(), 0, 300)
    tempo = sum("slowly" in text or "quickly" in text for text in made) / len(made)
    assert 0.65 < tempo < 0.85
    assert "" in made and len(set(made)) > 150


def test_loss():
    """Against the sum over one text at a time, which has no padding."""
    stage = make(free_nats=0.0)
    ids, targets = stage.batch(0, 6, 0)
    with torch.no_grad():
        loss, figures = stage((ids, targets), torch.Generator().manual_seed(1))
    noise = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    entropy = kl = 0
    for row, target, e in zip(ids, targets, noise):
        mean, log_variance = (x[0].detach() for x in stage.autoencoder.posterior(row[row > 0][None]))
        target = target[target != len(WORDS)]
        logits = stage.autoencoder.logits((mean + e * (log_variance / 2).exp())[None], target[None, :-1]).detach()
        entropy += F.cross_entropy(logits[0], target[1:], reduction="sum") / 6
        own = torch.distributions.Normal(mean, (log_variance / 2).exp())
        kl += torch.distributions.kl_divergence(own, torch.distributions.Normal(0, 1)).sum() / 6
    torch.testing.assert_close(loss, entropy + kl)
    assert figures == pytest.approx({"cross_entropy": float(entropy), "kl": float(kl)}, rel=1e-4)


def test_free_nats_leave_narrow_posteriors_alone():
    losses = {}
    for free in (0.0, 50.0):
        stage = make(free_nats=free)
        loss, figures = stage(stage.batch(0, 6, 0), torch.Generator().manual_seed(1))
        losses[free] = float(loss.detach()) - figures["cross_entropy"]
    assert losses[0.0] == pytest.approx(figures["kl"], rel=1e-4) and figures["kl"] > 0.1
    assert losses[50.0] == pytest.approx(0, abs=1e-4)


def test_it_learns_all_weights(tmp_path):
    stage = make()
    first, _ = stage(stage.batch(0, 64, 9), torch.Generator())
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    options = Options(steps=60, batch_size=32, learning_rate=5e-3, warmup=5, ema=0.9)
    assert train(stage, options, tmp_path, lambda line: None)["stage"] == "autoencoder_text"
    assert tiny.changed(before, dict(stage.named_parameters())) == before.keys()
    last, _ = stage(stage.batch(0, 64, 9), torch.Generator())
    assert float(last.detach()) < 0.7 * float(first.detach())
