"""Judged results on disk: batches, gaps between them, and their union."""

import pytest

from codi_backend.evaluation import records
from codi_backend.evaluation.records import batches, merge_batches, missing_batches, read_records, write_batch

HEADING = {"run": "a"}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BATCH", 2)
    return tmp_path / "runs" / "a.json"


def rows(*numbers):
    return [{"number": number} for number in numbers]


def test_batches_of_a_run(path):
    assert batches(5) == [(0, 2), (2, 2), (4, 1)]
    assert missing_batches(path, HEADING, 5) == batches(5) and read_records(path, HEADING) == []


def test_a_gap_is_filled_later(path):
    """Another process has made later batches; they are kept until those before them are there."""
    write_batch(path, HEADING, 0, rows(0, 1))
    write_batch(path, HEADING, 4, rows(4))
    assert read_records(path, HEADING) == rows(0, 1) and missing_batches(path, HEADING, 5) == [(2, 2)]
    merge_batches(path, HEADING)
    assert [file.name for file in (path.parent / "a").iterdir()] == ["000004.json"]
    assert read_records(path, HEADING) == rows(0, 1) and missing_batches(path, HEADING, 5) == [(2, 2)]
    write_batch(path, HEADING, 2, rows(2, 3))
    assert read_records(path, HEADING) == rows(0, 1, 2, 3, 4) and not missing_batches(path, HEADING, 5)
    merge_batches(path, HEADING)
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]
    assert read_records(path, HEADING) == rows(0, 1, 2, 3, 4) and not missing_batches(path, HEADING, 5)


def test_a_batch_that_is_too_short_is_made_again(path):
    write_batch(path, HEADING, 0, rows(0))
    assert not missing_batches(path, HEADING, 1) and missing_batches(path, HEADING, 3) == [(0, 2), (2, 1)]
    merge_batches(path, HEADING)
    assert missing_batches(path, HEADING, 3) == [(0, 2), (2, 1)]
    write_batch(path, HEADING, 0, rows(0, 1))
    assert read_records(path, HEADING) == rows(0, 1) and missing_batches(path, HEADING, 3) == [(2, 1)]


def test_results_of_other_settings_do_not_count(path):
    write_batch(path, {"run": "b"}, 0, rows(8, 9))
    assert read_records(path, HEADING) == [] and missing_batches(path, HEADING, 2) == [(0, 2)]
    write_batch(path, HEADING, 0, rows(0, 1))
    merge_batches(path, HEADING)
    assert read_records(path, HEADING) == rows(0, 1) and read_records(path, {"run": "b"}) == []
