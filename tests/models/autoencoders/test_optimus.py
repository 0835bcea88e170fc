"""The text autoencoder against the original's outputs (SPEC sections 5.3 and 9)."""

import json

import pytest
import torch
from published import filled, operations, read, released_loop, write_vocabularies

from codi_backend.config import CoDiConfig
from codi_backend.config.reference import text_autoencoder_from_reference
from codi_backend.models.autoencoders import TextAutoencoder
from codi_backend.models.autoencoders.token_sampling import TokenSampling

META, GOLDEN = read("optimus_small")
BOS, EOS = META["bos"][0], META["eos"][0]
GREEDY = TokenSampling(greedy=True)

# The tokens of the golden cases, from their texts and ids; the rest is made up.
WORDS = (
    "a train is passing by on the railway tracks .",
    "deep diving in coral reef , underwater !",
    "z ##ü ##rich ' s café — 42 % ( not ) bad . . .",
)
GPT2_WORDS = {
    "a dog doesn 't bark , it ' s quiet .": [257, 3290, 1595, -470, 21405, 837, 340, 705, 264, 5897, 764],
    "cat far ther concept departure matter \\ based": [3797, -21395, -5945, 3721, 12928, 2300, -59, 1912],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Vocabularies of the published sizes."""
    rows = zip(WORDS, GOLDEN["encode/input_ids"].tolist())
    words = {i: word for sentence, ids in rows for word, i in zip(sentence.split(), ids[1:])}
    tokens = {
        abs(i): word if i < 0 else f"Ġ{word}"  # negative: without a space before it
        for sentence, ids in GPT2_WORDS.items()
        for word, i in zip(sentence.split(), ids)
    }
    return write_vocabularies(tmp_path_factory.mktemp("vocabulary"), words, tokens)


@pytest.fixture(scope="module")
def optimus(folder):
    return filled(TextAutoencoder(text_autoencoder_from_reference(META), vocabulary=folder), "optimus.")


@pytest.fixture(scope="module")
def latents(optimus):
    return GOLDEN["decode/z_scaled"] / optimus.config.scale_factor


def close(a, b, atol=1e-4):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@torch.inference_mode()
def test_encoder(optimus):
    ids = GOLDEN["encode/input_ids"]
    close(optimus.encoder.pooled(ids), GOLDEN["encode/pooled"], 1e-5)
    close(optimus.posterior(ids)[0] * optimus.config.scale_factor, GOLDEN["encode/z"])


@torch.inference_mode()
def test_encode_texts(optimus):
    assert torch.equal(optimus.vocabulary.tokenize(META["sentences"]), GOLDEN["encode/input_ids"])
    close(optimus.encode(META["sentences"]) * optimus.config.scale_factor, GOLDEN["encode/z"])
    alone = optimus.encode(META["sentences"][1:2])
    close(alone * optimus.config.scale_factor, GOLDEN["encode/z"][1:2])


def test_long_texts_are_truncated(optimus):
    ids = optimus.vocabulary.tokenize(["a " * 600, "train"])
    assert ids.shape == (2, 512) and ids[0, -1] == 170 and ids[1].tolist()[:4] == [101, 2669, 102, 0]


@torch.inference_mode()
def test_logits(optimus, latents):
    logits = optimus.logits(latents, GOLDEN["decode/teacher_ids"].expand(3, -1))
    close(logits[:, -1], GOLDEN["decode/teacher_logits_last"])
    close(logits[:2, :, :2000], GOLDEN["decode/teacher_logits_first2000"])


def test_greedy(optimus, latents):
    assert optimus.sample(latents, GREEDY) == GOLDEN["decode/greedy_ids"].tolist()


@pytest.mark.parametrize(("temperature", "name"), [(1.0, "T1"), (0.05, "T0.05")])
def test_sampling(optimus, latents, temperature, name):
    sampling, generator = TokenSampling(temperature=temperature), torch.Generator().manual_seed(1234)
    texts = [released_loop(optimus, latent, sampling, generator) for latent in latents.split(1)]
    assert texts == GOLDEN[f"decode/sampled_ids_{name}_seed1234"].tolist()
    assert optimus.sample(latents, sampling, seed=1234)[0] == texts[0]


def test_cache(optimus, latents):
    """Decoding in steps equals decoding at once, and does not modify the cache."""
    ids = GOLDEN["decode/teacher_ids"].expand(3, -1)
    with torch.inference_mode():
        expected = optimus.logits(latents, ids)
        cache = optimus.decoder.begin(latents)
        first, grown = optimus.decoder(ids[:, :4], latents, cache)
        second, _ = optimus.decoder(ids[:, 4:5], latents, grown)
        third, _ = optimus.decoder(ids[:, 4:], latents, grown)
        close(optimus.decoder.logits(torch.cat([first, third], 1)), expected, 1e-5)
        close(optimus.decoder.logits(second), expected[:, 4:5], 1e-5)
    assert cache[0][0].shape[2] == 1 and grown[0][0].shape[2] == 5


def test_a_batch_equals_single_runs(optimus, latents):
    sampling = TokenSampling(top_k=40, top_p=0.9)
    batch = optimus.sample(latents, sampling, seed=5)
    assert batch == [optimus.sample(latent, sampling, seed=5)[0] for latent in latents.split(1)]
    assert batch != optimus.sample(latents, sampling, seed=6)


@pytest.mark.parametrize(
    "sampling", [TokenSampling(top_k=1), TokenSampling(top_p=1e-6), TokenSampling(temperature=1e-4)]
)
def test_ways_to_be_greedy(optimus, latents, sampling):
    assert optimus.sample(latents, sampling, seed=3) == optimus.sample(latents, GREEDY)


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (TokenSampling(), {0, 1, 2, 3}),
        (TokenSampling(top_k=3), {0, 1, 2}),
        (TokenSampling(top_p=0.6), {0, 1}),  # 0.5 is not enough, 0.8 is
        (TokenSampling(top_k=9, top_p=0.4), {0}),
    ],
)
def test_choice(sampling, possible):
    logits, generator = torch.tensor([0.5, 0.3, 0.15, 0.05]).log(), torch.Generator().manual_seed(0)
    before = logits.clone()
    assert {sampling.pick(logits, generator) for _ in range(300)} == possible
    assert torch.equal(logits, before)


class Scripted:
    """In place of `TokenSampling`: picks given ids regardless of the logits."""

    def __init__(self, *ids):
        self.ids = list(ids)

    def pick(self, logits, generator):
        return self.ids.pop(0)


def test_texts_end_at_the_end_token(optimus, latents):
    """No token is sampled for a text after its end, and none is computed after the last end."""
    script = Scripted(7, 8, EOS, 8, EOS)
    assert optimus.sample(latents[:2], script) == [[BOS, 7, EOS], [BOS, 8, 8, EOS]]
    assert not script.ids


def test_texts_end_at_the_maximum_length(optimus, latents):
    assert optimus.sample(latents[:1], Scripted(7, 8), max_tokens=4) == [[BOS, 7, 8, EOS]]
    assert optimus.sample(latents[:1], Scripted(), max_tokens=2) == [[BOS, EOS]]


def test_progress_can_interrupt(optimus, latents):
    calls = []

    def progress(*numbers):
        calls.append(numbers)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        optimus.decode(latents[:1], max_tokens=9, greedy=True, progress=progress)
    assert calls == [(1, 9), (2, 9), (3, 9)]


def test_an_ended_text_does_not_change_the_others(optimus, latents):
    class EndAt(TokenSampling):
        def pick(self, logits, generator):
            return EOS if logits.argmax() == 12568 else super().pick(logits, generator)

    texts, full = optimus.sample(latents, EndAt(greedy=True)), GOLDEN["decode/greedy_ids"].tolist()
    assert texts == [[*ids[: ids.index(12568)], EOS] if 12568 in ids else ids for ids in full]
    assert [len(ids) for ids in texts] == [5, 6, 30]


def test_words(optimus):
    for ids, text in META["gpt2_decode_examples"].items():
        assert optimus.vocabulary.text(json.loads(ids)) == text.removeprefix(" <BOS> ").removesuffix(" <EOS>")
    assert optimus.vocabulary.text([BOS, EOS]) == ""
    assert optimus.vocabulary.text([BOS, 257, BOS, 3797, EOS]) == "a <BOS> cat"


def test_a_first_token_without_a_space_is_removed(optimus):
    ids = GOLDEN["decode/sampled_ids_T1_seed1234"][2].tolist()[:8]
    expected = META["texts_T1_seed1234"][2].split()[:4]
    assert optimus.vocabulary.text([*ids, EOS]).split() == expected


def test_decode(optimus, latents):
    texts = optimus.decode(latents, greedy=True)
    assert texts == ["w35578 w12568", "w35461 w31887 w31063 w12568 w27481 w19772 w38575", "w873 w7883 w14119 w1165"]
    sampled = optimus.decode(latents, temperature=0.7, top_k=50, top_p=0.95, seed=1, max_tokens=12)
    assert all(0 < len(text.split()) <= 10 for text in sampled)
    assert sampled == optimus.decode(latents, temperature=0.7, top_k=50, top_p=0.95, seed=1, max_tokens=12)
    assert sampled != optimus.decode(latents, temperature=0.7, top_k=50, top_p=0.95, seed=2, max_tokens=12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision(optimus, latents, dtype):
    half = TextAutoencoder(optimus.config, dtype=dtype)
    half.load_state_dict(optimus.state_dict())
    mean, log_variance = half.posterior(GOLDEN["encode/input_ids"])
    logits = half.logits(latents.to(dtype), GOLDEN["decode/teacher_ids"].expand(3, -1))
    for x in (mean, log_variance, logits):
        assert x.dtype == dtype and x.isfinite().all()
    assert (mean.float() - GOLDEN["encode/z"] / optimus.config.scale_factor).abs().max() < 0.05
    assert (logits[:, -1].float() - GOLDEN["decode/teacher_logits_last"]).abs().mean() < 0.02
    assert len(half.sample(latents.to(dtype), GREEDY)) == 3


def test_gradients(optimus):
    mean, log_variance = optimus.posterior(GOLDEN["encode/input_ids"])
    logits = optimus.logits(mean, GOLDEN["decode/teacher_ids"].expand(4, -1))
    (logits.square().mean() + log_variance.square().mean()).backward()
    for name, parameter in optimus.named_parameters():
        if not name.endswith("key.bias"):  # the same for all keys: it does not change a softmax
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    optimus.zero_grad()


def test_layers_come_from_operations(optimus):
    made = operations("Linear", "Embedding", "LayerNorm")
    assert not list(TextAutoencoder(optimus.config, operations=made).parameters())


def test_stored_configuration(optimus):
    config = CoDiConfig(text_autoencoder=optimus.config)
    assert CoDiConfig.from_json(config.to_json()) == config
    short = {
        "encoder": {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2},
        "decoder": {"n_embd": 16, "n_head": 2, "n_layer": 3, "n_ctx": 64},
        "latent": 24,
    }
    assert text_autoencoder_from_reference(short) == optimus.config


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("temperature: 0", {"temperature": 0}),
        ("top_k: -1", {"top_k": -1}),
        ("top_p: 0", {"top_p": 0}),
        ("top_p: 1.1", {"top_p": 1.1}),
        ("max_tokens: 1 is out of range; choose a whole number from 2 to 64", {"max_tokens": 1}),
        ("max_tokens: 65 is out of range", {"max_tokens": 65}),
    ],
)
def test_options_out_of_range(optimus, latents, message, options):
    with pytest.raises(ValueError, match=message):
        optimus.decode(latents, **options)


def test_errors(optimus, latents):
    with pytest.raises(ValueError, match=r"Text latents must be \[B, 24\], not \[3, 23\]"):
        optimus.decode(latents[:, :23])
    with pytest.raises(ValueError, match="no text to encode"):
        optimus.encode([])


def test_missing_vocabularies(optimus, latents, tmp_path, folder):
    autoencoder = TextAutoencoder(optimus.config)
    for use in (lambda: autoencoder.encode(["a"]), lambda: autoencoder.decode(latents)):
        with pytest.raises(FileNotFoundError, match="name the folder that holds vocab.txt of BERT"):
            use()
    autoencoder.vocabulary_folder = tmp_path
    with pytest.raises(FileNotFoundError, match="vocab.txt of BERT"):
        autoencoder.encode(["a"])
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    with pytest.raises(FileNotFoundError, match="vocab.json of GPT-2"):
        autoencoder.encode(["a"])
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(ValueError, match="vocab.json has 1 tokens, and this model needs 50257: take the file of GPT-2"):
        autoencoder.encode(["a"])
    (tmp_path / "vocab.json").write_bytes((folder / "vocab.json").read_bytes())
    assert autoencoder.encode(["a"]).shape == (1, 24)
