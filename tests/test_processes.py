"""How work is divided among processes."""

import pytest
import torch

from codi_backend.processes import Processes, launched


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_item_is_taken_once(count):
    shares = [Processes(index, count).share(range(10)) for index in range(count)]
    assert sorted(item for share in shares for item in share) == list(range(10))
    assert all(item % count == index for index, share in enumerate(shares) for item in share)


def test_one_process_needs_no_accelerate(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() == Processes() and launched().gather([1, 2]) == [1, 2]
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("PMI_SIZE", "4")  # of a cluster's launcher, whose tasks may have nothing in common
    assert launched() == Processes()


def test_each_process_has_a_device_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [Processes(i, 4, i).device("cuda") for i in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert Processes(3, 4, 3).device("cuda:0") == "cuda:0" and Processes(3, 4, 3).device("cpu") == "cpu"
    assert Processes().device("cuda") == "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Processes(1, 2, 1).device("cuda") == "cuda"
