"""Captions: articles, styles, numbers of notes, names of samples."""

import dataclasses

import pytest

from codi_backend.data.emoji.captions import image_caption, speech_caption, thing, video_caption, with_article
from codi_backend.data.emoji.concepts import Concept
from codi_backend.data.emoji.performances import performances
from codi_backend.data.emoji.samples import sample_caption

APPLE = Concept("1f34e", "🍎", "red apple", ("fruit", "diet"), "things")


PHRASES = """
a red apple; an ambulance; grapes; the flag of France; an hourglass done; a unicorn;
a euro banknote; a one-piece swimsuit; an unamused face; an onion; one o'clock; thumbs up;
women wrestling; a person lifting weights; a fire engine; cooked rice; a slice of pizza; people holding hands;
T-Rex; a man in tuxedo; folded hands; an octopus; a compass; a cactus;
scissors; 1st place medal; a bow and arrow; glasses; a woman with headscarf; ice;
an ice cream; a bell; a sheaf of rice;
"""


@pytest.mark.parametrize("phrase", [phrase.strip() for phrase in PHRASES.split(";") if phrase.strip()])
def test_articles(phrase):
    name = phrase.removeprefix("a ").removeprefix("an ").removeprefix("the ")
    assert with_article(name) == phrase


def test_images():
    captions = {image_caption(APPLE, style) for style in ("Noto", "Twemoji", "flat", "3D", "a", "b", "c", "d", "e")}
    assert "a red apple, flat style" in captions or "a red apple, Noto style" in captions
    assert any(caption.startswith(("a red apple, fruit, ", "a red apple, diet, ")) for caption in captions)
    assert image_caption(dataclasses.replace(APPLE, keywords=()), "flat") == "a red apple, flat style"
    assert thing(dataclasses.replace(APPLE, name="multiply", group="symbols")) == "multiply"


def test_videos_and_speech():
    assert video_caption(APPLE, "3D") == "a red apple, 3D style, moving"
    assert speech_caption(APPLE, "an American man") == 'an American man says "red apple"'


def test_performances():
    captions = {p.name: p.caption for p in performances()}
    assert captions["violin-3-quick-level"] == "a violin plays three quick notes"
    assert captions["piano-4-slow-falling-high"] == "a piano plays four slow falling notes, high"
    assert captions["bell-1-low"] == "a bell rings one note, low"
    assert captions["drum-2-slow-loud"] == "a drum plays two slow beats, loud"
    assert captions["clapping-1"] == "hands clap one beat"


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("drum_tom_hi_soft", "a soft high tom drum"),
        ("drum_cymbal_open", "an open cymbal"),
        ("elec_filt_snare", "an electronic filtered snare sound"),
        ("bd_zome", "a bass drum"),
        ("loop_perc2", "a percussion loop"),
        ("perc_bell2", "a percussive bell sound"),
        ("ambi_dark_woosh", "an ambient dark woosh sound"),
        ("tabla_te_ne", "a tabla drum"),
        ("loop_garzul", None),
        ("tbd_pad_1", None),
    ],
)
def test_samples(name, caption):
    assert sample_caption(name) == caption
