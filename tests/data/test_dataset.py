"""Shapes & Chimes as a dataset."""

import pytest
import torch
from torch.utils.data import DataLoader

from codi_backend.data import Scene, ShapesAndChimes, is_held_out

ALL = ("image", "video", "audio", "text")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k] for k in a)


def test_item():
    item = ShapesAndChimes(3, ALL)[2]
    assert {k: tuple(v.shape) for k, v in item.items() if torch.is_tensor(v)} == {
        "image": (3, 64, 64),
        "video": (3, 16, 64, 64),
        "audio": (1, 40960),
    }
    assert item["image"].dtype == item["audio"].dtype == torch.float32
    assert 0 <= item["image"].min() and item["image"].max() <= 1
    assert isinstance(item["text"], str) and isinstance(item["scene"], Scene)
    assert torch.equal(item["video"][:, -1], item["image"])


def test_only_what_was_asked_for():
    assert ShapesAndChimes(1, ("audio",))[0].keys() == {"scene", "audio"}


def test_items_follow_from_the_seed():
    a, b = ShapesAndChimes(4, ALL, seed=9), ShapesAndChimes(99, ALL, seed=9)
    assert all(same(a[i], b[i]) for i in range(4))
    assert same(a[1], a[1])
    other = ShapesAndChimes(4, ALL, seed=10)
    assert not any(same(a[i], other[i]) for i in range(4))


def test_wordings_follow_from_the_seed():
    a, b = (
        [i for i in range(99) if not ShapesAndChimes(99, ("text",), seed=s, leave_out=0.5)[i]["text"]] for s in (0, 1)
    )
    assert a and b and a != b


@pytest.mark.parametrize(("split", "held_out"), [("train", {False}), ("held_out", {True}), ("all", {False, True})])
def test_split(split, held_out):
    scenes = [item["scene"] for item in ShapesAndChimes(60, (), split)]
    assert {is_held_out(s.colour, s.shape, s.count) for s in scenes} == held_out


def test_leave_out():
    assert {item["text"] for item in ShapesAndChimes(20, ("text",), leave_out=1)} == {""}


def test_length():
    data = ShapesAndChimes(3, ())
    assert len(data) == len(list(data)) == 3


@pytest.mark.parametrize("index", [-1, 3])
def test_index_out_of_range(index):
    with pytest.raises(IndexError):
        ShapesAndChimes(3)[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"split": "test"}, "no split 'test'; choose from train"), ({"modalities": ("image", "smell")}, "smell")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ShapesAndChimes(1, **options)


def test_collate():
    data = ShapesAndChimes(5, ("image", "text"))
    first, second = DataLoader(data, batch_size=3, collate_fn=data.collate)
    assert first["image"].shape == (3, 3, 64, 64) and second["image"].shape == (2, 3, 64, 64)
    assert torch.equal(second["image"][1], data[4]["image"])
    assert first["text"] == [data[i]["text"] for i in range(3)]
    assert [s.shape for s in first["scene"]] == [data[i]["scene"].shape for i in range(3)]
