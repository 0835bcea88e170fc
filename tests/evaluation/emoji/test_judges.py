"""The judges on made images and sounds, whose labels are known."""

import pytest
import torch
from emoji_dataset import COLOURS, HARMONICS, STYLES, WORDS, picture, tone, word, write_dataset

from codi_backend.evaluation.emoji import JUDGES, build_judge, measure
from codi_backend.evaluation.emoji.features import blurred
from codi_backend.media.read import read_image


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize("size", [64, 128, 48])
def test_concepts_at_any_size(dataset, size):
    judge = build_judge(dataset, "concept")
    for concept, colour in COLOURS.items():
        pixels = torch.from_numpy(picture(colour, size, size // 4, size // 2)).permute(2, 0, 1) / 255
        assert judge.rank(pixels)[0] == concept
    assert sorted(judge.rank(pixels)) == sorted(judge.labels) == sorted(COLOURS)
    assert len(judge.rank(pixels, 2)) == 2


@pytest.mark.parametrize("level", [0.01, 1.0])
def test_instruments_at_any_level(dataset, level):
    judge = build_judge(dataset, "instrument")
    for name, harmonics in HARMONICS.items():
        assert judge.rank(level * torch.from_numpy(tone(harmonics, 315))[None])[0] == name


@pytest.mark.parametrize(("notes", "number"), [(1, "one"), (2, "two"), (3, "three")])
def test_notes_at_any_time_and_level(dataset, notes, number):
    judge = build_judge(dataset, "notes")
    for harmonics in HARMONICS.values():
        wave = torch.from_numpy(tone(harmonics, 340, notes))[None]
        assert judge.rank(wave)[0] == judge.rank(0.05 * wave.roll(2400, 1))[0] == number


@pytest.mark.parametrize("style", STYLES)
def test_styles_of_any_concept(dataset, style):
    judge = build_judge(dataset, "style")
    for colour in (*COLOURS.values(), (120, 60, 160)):
        pixels = torch.from_numpy(picture(colour, 96, 30, 40, style)).permute(2, 0, 1) / 255
        for image in (pixels, blurred(pixels)):
            assert judge.rank(image) == [style, *(other for other in STYLES if other != style)]


@pytest.mark.parametrize("tempo", [0.8, 1.3])
def test_words_at_any_tempo_and_level(dataset, tempo):
    judge = build_judge(dataset, "word")
    for name, bands in WORDS.items():
        wave = torch.from_numpy(word(bands, 9))[None, None]
        stretched = torch.nn.functional.interpolate(wave, scale_factor=tempo, mode="linear")[0]
        assert judge.rank(0.1 * stretched)[0] == name


def test_kinds_of_sound(dataset):
    judge = build_judge(dataset, "sound")
    assert judge.rank(torch.from_numpy(word(WORDS["sea"], 9))[None])[0] == "speech"
    assert judge.rank(torch.from_numpy(tone(HARMONICS["organ"], 345))[None])[0] == "instrument"


def test_accuracy(dataset):
    labels = {"concept": 4, "style": 2, "word": 4, "instrument": 3, "notes": 3, "sound": 2}
    examples = {"concept": 8, "style": 8 + 24, "word": 4, "instrument": 3, "notes": 3, "sound": 7}
    for name in JUDGES:
        expected = {"top 5": 1, "labels": labels[name], "examples": examples[name], "chance": 1 / labels[name]}
        top = 31 / 32 if name == "style" else 1  # of concepts that it does not know
        assert measure(dataset, name) == {"top 1": top, **expected}


def test_accuracy_on_changed_contents(dataset):
    assert measure(dataset, "notes", torch.zeros_like)["top 1"] < measure(dataset, "notes", lambda x: x / 2)["top 1"]
    black = measure(dataset, "style", torch.zeros_like)
    assert black["top 1"] == 1 / 2 and black["examples"] == 8 + 24


def test_accuracy_of_wrong_labels(dataset, tmp_path):
    text = (dataset / "metadata.csv").read_text()
    held_out = [line for line in text.splitlines() if ",test,instrument,organ," in line]
    for path in dataset.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "metadata.csv").write_text(text.replace(held_out[0], held_out[0].replace(",organ,", ",clarinet,")))
    assert measure(tmp_path, "instrument")["top 1"] == pytest.approx(2 / 3)


def test_a_dataset_without_such_rows(dataset, tmp_path):
    (tmp_path / "metadata.csv").write_text("text,image,kind,split\n")
    with pytest.raises(ValueError, match="has no rows of the kind image for train: make them with codi dataset emoji"):
        build_judge(tmp_path, "concept")
    with pytest.raises(FileNotFoundError):
        build_judge(tmp_path / "nothing", "concept")


def test_judges_take_what_the_readers_give(dataset):
    assert build_judge(dataset, "concept").rank(read_image(dataset / "sea3flat.png"))[0] == "sea"
