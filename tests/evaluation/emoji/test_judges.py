"""The judges on made images and sounds, whose labels are known."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from codi_backend.data.emoji.files import flac_bytes
from codi_backend.evaluation.emoji import concept_judge, instrument_judge, measure
from codi_backend.media.read import read_image

COLOURS = {"apple": (220, 30, 30), "leaf": (30, 160, 60), "sea": (40, 60, 220)}
HARMONICS = {"flute": (1,), "organ": (1, 2, 3, 4), "clarinet": (1, 3, 5)}


def picture(colour, size, left, side):
    pixels = np.full((size, size, 3), 255, np.uint8)
    pixels[size // 4 : size // 4 + side, left : left + side] = colour
    return pixels


def tone(harmonics, pitch):
    time = np.arange(40960) / 16000
    wave = sum(np.sin(2 * np.pi * pitch * h * time) for h in harmonics) * np.exp(-2 * time)
    return 0.5 * wave / np.abs(wave).max()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three concepts and three instruments, four examples each, of which the last is held out."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = []
    for i in range(4):
        split = "test" if i == 3 else "train"
        for concept, colour in COLOURS.items():
            Image.fromarray(picture(colour, 64, 12 + 3 * i, 28 + i)).save(folder / f"{concept}{i}.png")
            rows.append({"image": f"{concept}{i}.png", "kind": "image", "concept": concept, "split": split})
        for name, harmonics in HARMONICS.items():
            (folder / f"{name}{i}.flac").write_bytes(flac_bytes(tone(harmonics, 300 + 30 * i)))
            rows.append({"audio": f"{name}{i}.flac", "kind": "instrument", "concept": name, "split": split})
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "image", "audio", "kind", "concept", "split"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.parametrize("size", [64, 128, 48])
def test_concepts_at_any_size(dataset, size):
    judge = concept_judge(dataset)
    for concept, colour in COLOURS.items():
        pixels = torch.from_numpy(picture(colour, size, size // 4, size // 2)).permute(2, 0, 1) / 255
        assert judge.rank(pixels)[0] == concept
    assert sorted(judge.rank(pixels)) == sorted(judge.labels) == sorted(COLOURS)
    assert len(judge.rank(pixels, 2)) == 2


@pytest.mark.parametrize("level", [0.01, 1.0])
def test_instruments_at_any_level(dataset, level):
    judge = instrument_judge(dataset)
    for name, harmonics in HARMONICS.items():
        assert judge.rank(level * torch.from_numpy(tone(harmonics, 315))[None])[0] == name


def test_accuracy(dataset):
    for kind in ("image", "instrument"):
        measured = measure(dataset, kind)
        assert measured == {"top 1": 1, "top 5": 1, "labels": 3, "examples": 3, "chance": 1 / 3}


def test_accuracy_of_wrong_labels(dataset, tmp_path):
    text = (dataset / "metadata.csv").read_text()
    held_out = [line for line in text.splitlines() if line.endswith("image,sea,test")]
    for path in dataset.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "metadata.csv").write_text(text.replace(held_out[0], held_out[0].replace("sea,test", "leaf,test")))
    assert measure(tmp_path, "image")["top 1"] == pytest.approx(2 / 3)


def test_a_dataset_without_such_rows(dataset, tmp_path):
    (tmp_path / "metadata.csv").write_text("text,image,kind,split\n")
    with pytest.raises(ValueError, match="has no rows of the kind image for train: make them with codi dataset emoji"):
        concept_judge(tmp_path)
    with pytest.raises(FileNotFoundError):
        concept_judge(tmp_path / "nothing")


def test_judges_take_what_the_readers_give(dataset):
    assert concept_judge(dataset).rank(read_image(dataset / "sea3.png"))[0] == "sea"
