"""The text autoencoder with a small vocabulary."""

import itertools

import numpy as np
import pytest
import torch

from codi_backend.config import CoDiConfig, TextAutoencoderConfig, TransformerConfig
from codi_backend.data import sample_scene
from codi_backend.data.captions import ATTRIBUTES, caption, caption_words
from codi_backend.models.autoencoders import TextAutoencoder
from codi_backend.pipeline import CoDi


def configure(words, encoder=0, decoder=0, positions=16, **options):
    sizes = {"positions": positions, "width": 16, "hidden": 16, "layers": 1, "heads": 2}
    return TextAutoencoderConfig(
        latent_dim=8,
        words=words,
        encoder=TransformerConfig(len(words) + 4 + encoder, **sizes),
        decoder=TransformerConfig(len(words) + 3 + decoder, **sizes),
        **options,
    )


FEW = configure(("don", "t", "'", ",", "red", "stars", "ü"))
PAD, UNKNOWN, BEGIN, END = range(4)


def make(config, **options):
    torch.manual_seed(0)
    return TextAutoencoder(config, **options).eval()


def test_ids():
    words = make(FEW).vocabulary
    assert words.tokenize(["Red  stars,Ü", ""]).tolist() == [[BEGIN, 8, 9, 7, 10, END], [BEGIN, END, 0, 0, 0, 0]]
    assert words.targets(["Red  stars,Ü", ""]).tolist() == [[8, 4, 5, 3, 6, 9], [8, 9, 7, 7, 7, 7]]


def test_unknown_words():
    autoencoder = make(FEW)
    text = "Red 日本 stars; 🙂 red-hot\n"
    ids = autoencoder.vocabulary.tokenize([text])
    assert ids.tolist() == [[BEGIN, 8, UNKNOWN, 9, UNKNOWN, UNKNOWN, 8, UNKNOWN, UNKNOWN, END]]
    assert autoencoder.vocabulary.targets([text]).tolist() == [[8, 4, 5, 4, 9]]
    assert autoencoder.encode([text]).shape == (1, 8)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([8, 4, 5, 3, 4, 9], "red stars, red"),
        ([8, 0, 2, 1, 4, 9], "don't red"),
        ([8, 7, 4, 8, 5, 9], "red stars"),  # padding and another begin token are not words
        ([8, 9], ""),
    ],
)
def test_texts_have_normal_spacing(ids, text):
    assert make(FEW).vocabulary.text(ids) == text


def test_every_caption_goes_around():
    words = make(configure(caption_words(), positions=32)).vocabulary
    rng = np.random.default_rng(0)
    subsets = [named for n in range(5) for named in itertools.combinations(ATTRIBUTES, n)]
    texts = [caption(sample_scene(3, i, "all"), named, rng) for i in range(250) for named in subsets]
    targets = words.targets(texts)
    assert [words.text(ids.tolist()) for ids in targets] == [text.lower() for text in texts]
    assert UNKNOWN not in words.tokenize(texts)
    assert set(targets.unique().tolist()) == set(range(len(words.words) + 3))  # every word is used


def test_long_texts_are_truncated():
    autoencoder = make(FEW)
    words = autoencoder.vocabulary
    assert words.tokenize(["red " * 40]).shape == words.targets(["red " * 40]).shape == (1, 16)
    assert autoencoder.encode(["red " * 40]).shape == (1, 8)


@pytest.mark.parametrize(
    ("which", "message"), [("encoder", "an encoder .* 11, not 12"), ("decoder", "a decoder .* 10, not 11")]
)
def test_sizes_that_do_not_fit_the_list(which, message):
    with pytest.raises(ValueError, match=f"A list of 7 words needs {message}"):
        make(configure(FEW.words, **{which: 1}))


def test_no_vocabulary_folder_is_needed(tmp_path):
    autoencoder = make(FEW, vocabulary=tmp_path / "nothing")
    latents = autoencoder.encode(["red stars", "stars"])
    assert latents.shape == (2, 8) and not torch.equal(latents[0], latents[1])
    assert len(autoencoder.decode(latents, max_tokens=8)) == 2


def test_padding_is_masked():
    """A text has the same latent alone and in a padded batch."""
    autoencoder = make(FEW)
    both = autoencoder.encode(["red", "red stars, don't red stars"])
    torch.testing.assert_close(both[:1], autoencoder.encode(["red"]))


@pytest.mark.parametrize("greedy", [True, False])
def test_greedy_by_default(greedy):
    torch.manual_seed(0)
    codi = CoDi(CoDiConfig(text_autoencoder=configure(FEW.words, greedy=greedy)))
    codi.autoencoders["text"].decoder.token_embedding.weight.data.mul_(0.1)  # now no token is much likelier than others
    latents = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    default = codi.decode("text", latents, max_tokens=12)
    assert default == codi.decode("text", latents, max_tokens=12, greedy=greedy)
    assert default != codi.decode("text", latents, max_tokens=12, greedy=not greedy)


def test_stored_configuration():
    config = CoDiConfig(text_autoencoder=configure(caption_words(), greedy=True))
    stored = CoDiConfig.from_json(config.to_json())
    assert stored == config and isinstance(stored.text_autoencoder.words, tuple)
