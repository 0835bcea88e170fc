"""Random trees of files, hidden folders, links and tar files: every file is used, named, or trash."""

import io
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codi_backend.data.broken import Broken
from codi_backend.data.entries import find_entries

pytestmark = pytest.mark.property

FOLDERS = st.sampled_from(["a", "B", "é", "x y", ".hidden", "__MACOSX", "$RECYCLE.BIN", "@eaDir", ".ipynb_checkpoints"])
STEMS = st.sampled_from(["a", "b", "B", "é", "._a", "c d", ".x"])
KINDS = {
    "txt": "text",
    "CAPTION": "text",
    "png": "image",
    "JPG": "image",
    "wav": "audio",
    "MP4": "video",
    "gif": "video",
}
OTHERS = {"md": None, "zip": None, "heic": None}
ENDINGS = st.sampled_from([*KINDS, *OTHERS])
PATHS = st.tuples(st.lists(FOLDERS, max_size=2), STEMS, ENDINGS)
TRASH = {".hidden", "__MACOSX", "$RECYCLE.BIN", "@eaDir", ".ipynb_checkpoints"}


def expected(paths):
    """Modalities by name, names with two files of a modality, and how many files are passed over."""
    groups, twice, unknown = {}, set(), 0
    for folders, stem, ending in paths:
        if TRASH & {*folders} or stem.startswith("."):
            continue
        name = "/".join([*folders, stem])
        if ending in OTHERS:
            unknown += 1
            continue
        kinds = groups.setdefault(name, [])
        if KINDS[ending] in kinds:
            twice.add(name)
        kinds.append(KINDS[ending])
    return {name: sorted(kinds) for name, kinds in groups.items() if name not in twice}, twice, unknown


def check(data, prefix, paths):
    entries, twice, unknown = expected(paths)
    notes, broken = [], Broken(skip=True)
    try:
        found = find_entries(data, notes.append, broken)
    except ValueError as error:
        assert not entries and "has no training data" in str(error)
        found, notes = [], [str(error)]
    assert {entry.name.removeprefix(prefix): sorted(entry.contents) for entry in found} == entries
    assert {fault.entry.removeprefix(prefix) for fault in broken.faults} == twice
    assert bool(unknown) == any("packed and not read" in note or "unknown endings" in note for note in notes)
    if twice:
        with pytest.raises(ValueError, match="have one name and are both"):
            find_entries(data)


@given(st.lists(PATHS, min_size=1, max_size=8, unique_by=str), st.booleans())
def test_folders(paths, circle):
    with TemporaryDirectory() as folder:
        for folders, stem, ending in paths:
            file = Path(folder, *folders, f"{stem}.{ending}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
        if circle:
            Path(folder, "zzz").symlink_to(folder)
        check(Path(folder), "", paths)


@given(st.lists(PATHS, min_size=1, max_size=8, unique_by=str), st.sampled_from(["", "./"]))
def test_tar_files(paths, begin):
    with TemporaryDirectory() as folder:
        shard = Path(folder, "s.tar")
        with tarfile.open(shard, "w") as archive:
            for folders, stem, ending in paths:
                info = tarfile.TarInfo(begin + "/".join([*folders, f"{stem}.{ending}"]))
                info.size = 1
                archive.addfile(info, io.BytesIO(b"x"))
        check(shard, "s.tar/", paths)
