"""Latents of a user's data in which contents occur in several entries, and entries lack modalities."""

from pathlib import Path

import pytest
import tiny
import torch

from codi_backend.data.contents import Entry
from codi_backend.data.pairs import Pairs
from codi_backend.training.pair_latents import PairLatents, Table

APPLE, STAR, BELL = Path("apple.png"), Path("star.png"), Path("bell.wav")
ENTRIES = [
    Entry("0", {"image": APPLE, "text": "apple, flat"}),
    Entry("1", {"image": STAR, "text": "star, flat"}),
    Entry("2", {"audio": BELL, "text": "bell"}),
    Entry("3", {"image": STAR, "audio": BELL, "text": "star, flat, and bell"}),
    Entry("4", {"image": STAR, "audio": BELL, "text": "star, and loud bell"}),
]


def table(contents, copies=1, width=3):
    rows = torch.arange(len(contents) * copies).float()[:, None].expand(-1, width)
    places = {c: {(0.0, k): i * copies + k for k in range(copies)} for i, c in enumerate(contents)}
    return Table(rows.half(), places)


@pytest.fixture
def data():
    texts = [entry.contents["text"] for entry in ENTRIES]
    latents = {"image": table([APPLE, STAR], 2), "audio": table([BELL], 2), "text": table(texts)}
    pairs = Pairs(ENTRIES, tiny.FOUR, ())
    return PairLatents(pairs, latents, {"audio": Table(torch.full((1, 5), 7.0), {BELL: {(0.0, 0): 0}})}, phrases=True)


def batches(data, streams, prompts=("text",), **options):
    """Rows of 50 batches: latents by stream, caption, description, and whether the prompt is a text."""
    options = {"leave_out": 0.0, "empty": 0.0} | options
    for step in range(50):
        batch = data.batch(step, 2, 0, streams, prompts, **options)
        for i in range(2):
            row = {name: int(batch[name][i, 0]) for name in streams}
            yield row, batch["captions"][i], batch["described"][i], bool(batch["is_text"][i])


def test_each_content_has_its_turn_and_its_plain_description(data):
    rows = list(batches(data, ("image",)))
    assert sum(row["image"] < 2 for row, *_ in rows) == 50  # an apple in each of 50 batches of two
    assert {row["image"] for row, *_ in rows} == {0, 1, 2, 3}  # in both copies
    of_star = [(caption, described) for row, caption, described, _ in rows if row["image"] >= 2]
    assert {described for _, described in of_star} == {"star, flat"}
    captions = [caption for caption, _ in of_star]
    assert set(captions) == {"star, flat", "star, flat, and bell", "star, and loud bell"}
    assert 15 < captions.count("star, flat") < 35  # entries of images alone, and those with audio, take turns


def test_streams_are_taken_from_entries_that_have_them(data):
    rows = list(batches(data, ("image", "audio")))
    assert {(row["image"], row["audio"]) for row, *_ in rows} == {(2, 0), (3, 1)}  # of equal copies
    assert {described for *_, described, _ in rows} == {"star, flat, and bell", "star, and loud bell"}
    with pytest.raises(ValueError, match="No entry of The data has image and video: give such entries"):
        data.batch(0, 1, 0, ("image", "video"))


def test_texts_are_their_own_prompts(data):
    rows = list(batches(data, ("text",)))
    assert {row["text"] for row, *_ in rows} == set(range(5))
    assert all(caption == described == ENTRIES[row["text"]].contents["text"] for row, caption, described, _ in rows)
    paired = {(row["image"], row["text"]) for row, *_ in batches(data, ("image", "text"))}
    assert paired == {(0, 0), (1, 0), (2, 1), (3, 1)}


def test_prompts_of_other_modalities(data):
    rows = list(batches(data, ("image",), ("text", "audio")))
    assert all(is_text for row, *_, is_text in rows if row["image"] < 2)
    assert 0 < sum(not is_text for *_, is_text in rows) < 25
    batch = data.batch(0, 20, 0, ("audio",), ("audio",), empty=0.5)
    assert torch.equal(batch["embedding"][:, 0] == 7, ~batch["is_text"])
    assert (batch["embedding"][batch["is_text"]] == 0).all() and 0 < batch["is_text"].sum() < 20


def test_phrases_are_left_out(data):
    captions = {caption for row, caption, *_ in batches(data, ("image",), leave_out=0.5) if row["image"] < 2}
    assert captions == {"apple, flat", "apple", "flat", ""}
    data.phrases = False
    assert {caption for row, caption, *_ in batches(data, ("image",), leave_out=0.5) if row["image"] < 2} == {
        "apple, flat"
    }


def test_rows_that_belong_together(data):
    together = data.aligned(("image", "audio"))
    assert together["image"][:, 0].tolist() == [2, 3] and together["audio"][:, 0].tolist() == [0, 1]
