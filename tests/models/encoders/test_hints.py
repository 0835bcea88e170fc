"""Hints about words outside a small model's training captions, and about truncated texts."""

import dataclasses
import re
import warnings

import pytest
import torch
from tiny import FOUR, build

from codi_backend.cli.main import main
from codi_backend.conditioning.text_hints import TextHint, encoding_hints, known_words, text_hints
from codi_backend.config import TextEncoderConfig
from codi_backend.pipeline import CoDi
from codi_backend.presets import mini, vd_mini

CLIP = TextEncoderConfig()
WORDS = known_words(mini.CONFIG)


@pytest.mark.parametrize(
    "text", ["", "   ", "\n", "three red stars, slowly", "THREE Red stars,slowly", "a picture of an orange heart"]
)
def test_texts_of_the_captions_need_no_hint(text):
    assert text_hints([text], CLIP, WORDS) == []


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("two cats", ['"cats"']),
        ("a cat. A cat!", ['"cat"', '"."', '"!"']),
        ("Zwölf rote Sterne", ['"zwölf"', '"rote"', '"sterne"']),
        ("red" * 20, ['"redredredredredredredred..."']),
        ("a1 b1 c1 d1 e1 f1 g1 h1", ['"a1"', '"b1"', '"c1"', '"d1"', '"e1"', '"f1" and 2 more']),
    ],
)
def test_words_that_are_not_in_the_captions(text, unknown):
    (hint,) = text_hints([text], CLIP, WORDS)
    assert f"did not contain {', '.join(unknown)}, so" in hint and "\n" not in hint
    assert hint.endswith(f"They contained: {' '.join(WORDS)}")


def test_a_large_vocabulary_is_not_listed_whole():
    words = [f"w{i:03}" for i in range(150)]
    (hint,) = text_hints(["cat"], CLIP, words)
    assert "w099 and 50 more" in hint and "w100" not in hint
    (hint,) = text_hints(["cat"], CLIP, words[:100])
    assert hint.endswith(" w099")


def test_published_models_accept_all_words():
    config = dataclasses.replace(
        mini.CONFIG, text_autoencoder=dataclasses.replace(mini.CONFIG.text_autoencoder, words=None)
    )
    assert known_words(config) is None and text_hints(["a zebra"], CLIP, None) == []
    assert known_words(vd_mini.CONFIG) == WORDS


@pytest.mark.parametrize(
    ("text", "tokens", "end"),
    [
        ("red " * 75, None, None),
        ("red " * 74 + "star blue", 76, '"red red star"'),
        ("red " * 10_000, 10_000, '"red red red"'),
        ("red " * 74 + "cryptozoological", 77, '"red red crypto" (in the middle of a word)'),
    ],
)
def test_a_truncated_text(text, tokens, end):
    hints = text_hints([text], CLIP, None)
    if tokens is None:
        assert hints == []
        return
    (hint,) = hints
    assert f"has {tokens} tokens, of which the encoder reads the first 75: it ends after {end}. " in hint


def test_the_limit_is_the_encoders():
    (hint,) = text_hints(["red blue star"], dataclasses.replace(CLIP, positions=4), None)
    assert 'has 3 tokens, of which the encoder reads the first 2: it ends after "red blue"' in hint


def test_hints_of_the_text_autoencoder():
    config = mini.CONFIG.text_autoencoder
    assert encoding_hints(["two red stars"], config) == []
    (unknown,) = encoding_hints(["two cats", "two red stars"], config)
    assert 'did not contain "cats", so' in unknown
    (cut,) = encoding_hints(["red " * 29 + "blue star"], config)
    assert (
        'has 31 words and punctuation marks, of which the encoder reads the first 30: it ends after "red red blue"'
        in cut
    )
    assert encoding_hints(["two cats"], dataclasses.replace(config, words=None)) == []


@pytest.fixture(scope="module")
def whole():
    return build(FOUR)


def test_the_library_warns_without_changing_the_result(whole):
    with pytest.warns(TextHint, match='did not contain "cats"') as caught:
        embedding = whole.prompt("text", "two cats").embedding
    assert [warning.filename for warning in caught] == [__file__]
    encoder = whole.prompt_encoders["text"]
    torch.testing.assert_close(embedding, encoder(encoder.tokenize(["two cats"])))
    with pytest.warns(TextHint, match='did not contain "green"'):
        whole.encode("text", ["green"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole.prompt("text", ["two red stars", ""])
        whole.encode("text", "two red stars")


def test_one_text_is_one_latent(whole):
    assert torch.equal(whole.encode("text", "two red stars"), whole.encode("text", ["two red stars"]))


def test_a_partly_loaded_model_has_its_words():
    codi = CoDi.load("mini", only=["prompt_encoders.text"])
    assert codi.config.text_autoencoder is None and codi.prompt_words == WORDS
    with pytest.warns(TextHint, match="cats"):
        codi.prompt("text", "cats")


def test_the_command_prints_one_line_per_hint(tmp_path, capsys):
    options = ["--steps", "1", "--candidates", "1", "--out", str(tmp_path / "out"), "--outputs", "text"]
    assert main(["generate", *options, "--text", "two cats", "--text", "two cats", "--text", "red " * 80]) == 0
    hints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("codi:")]
    assert len(hints) == 2
    assert re.match(r'codi: hint: The training captions of this model did not contain "cats", so', hints[0])
    assert re.match(r"codi: hint: The text has 80 tokens, of which the encoder reads the first 75: ", hints[1])
    assert main(["generate", *options, "--text", "two red stars"]) == 0
    assert "hint" not in capsys.readouterr().err
