"""Folders of data: hidden files, links, archives, endings, metadata files; and tar files."""

import io
import os
import tarfile
import unicodedata

import own_data
import pytest
from PIL import Image

from codi_backend.data.broken import Broken
from codi_backend.data.contents import Member, as_file
from codi_backend.data.entries import find_entries


def found(folder, broken=None):
    """Modalities by the names of entries, and the notes."""
    notes = []
    entries = find_entries(folder, notes.append, broken)
    return {entry.name: sorted(entry.contents) for entry in entries}, notes


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def tar(path, *names, links=()):
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
        for name, target, kind in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return path


TRASH = [
    ".ipynb_checkpoints/a-checkpoint.png",
    ".git/objects/a.png",
    "__MACOSX/a.png",
    ".Trash-1000/files/a.png",
    "$RECYCLE.BIN/a.png",
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
    "lost+found/a.png",
    "System Volume Information/a.txt",
    "sub/._a.png",
    "sub/.hidden.png",
    "Thumbs.db",
    "sub/Desktop.ini",
]


def test_hidden_files_and_trash(tmp_path):
    touch(tmp_path, "sub/a.png", "sub/a.txt", *TRASH)
    assert found(tmp_path) == ({"sub/a": ["image", "text"]}, [])


def test_hidden_files_and_trash_in_tar_files(tmp_path):
    tar(tmp_path / "x.tar", "./sub/a.png", "sub/a.txt", *TRASH)
    assert found(tmp_path / "x.tar") == ({"x.tar/sub/a": ["image", "text"]}, [])


def test_a_hidden_folder_that_is_given(tmp_path):
    touch(tmp_path, ".data/a.png")
    assert found(tmp_path / ".data")[0] == {"a": ["image"]}


def test_endings_in_any_case(tmp_path):
    touch(tmp_path, "a.JPG", "a.Txt", "b.Caption", "b.AIFF", "c.MTS", "d.jfif")
    expected = {"a": ["image", "text"], "b": ["audio", "text"], "c": ["video"], "d": ["image"]}
    assert found(tmp_path) == (expected, [])


def test_names_in_the_form_of_macos(tmp_path):
    touch(tmp_path, unicodedata.normalize("NFD", "é.png"), "é.txt")
    assert found(tmp_path)[0] == {"é": ["image", "text"]}


def test_links(tmp_path):
    touch(tmp_path, "store/one/a.png", "data/a.txt")
    data = tmp_path / "data"
    (data / "linked").symlink_to(tmp_path / "store")
    (data / "b.png").symlink_to(tmp_path / "store" / "one" / "a.png")
    assert found(data) == ({"a": ["text"], "b": ["image"], "linked/one/a": ["image"]}, [])


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "x/y/a.png")
    (tmp_path / "x" / "y" / "up").symlink_to(tmp_path)
    (tmp_path / "z").symlink_to(tmp_path / "x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names, notes = found(tmp_path)
    assert names == {"x/y/a": ["image"]}
    assert notes == ["2 folder(s) are links to others, which are read once: x/y/up, z."]


def test_broken_links(tmp_path):
    touch(tmp_path, "b.png")
    (tmp_path / "a.png").symlink_to("absent.png")
    with pytest.raises(ValueError, match=r"a\.png is a link that leads nowhere"):
        found(tmp_path)
    broken = Broken(skip=True)
    assert found(tmp_path, broken)[0] == {"b": ["image"]} and len(broken.faults) == 1


def test_what_is_not_used_is_named(tmp_path):
    touch(tmp_path, "a.png", "b.zip", "c.tar.gz", "x/d.7z", "e.md", "f.md", "g.heic", "noending", "data.csv", "h.json")
    names, notes = found(tmp_path)
    assert names == {"a": ["image"]}
    assert notes == [
        "3 files are packed and not read: b.zip, c.tar.gz, d.7z. Unpack what belongs to the data, or pack it as .tar "
        "without compression.",
        "1 file is not read: data.csv. A manifest is given itself as the data, or is called metadata.csv or "
        "metadata.jsonl and names files as file_name.",
        "5 files are not used for unknown endings: .md (2), .heic (1), .json (1), no ending (1).",
        "Files that end in .heic cannot be read: convert them to PNG or JPEG.",
    ]


def test_nothing_but_what_is_not_used(tmp_path):
    touch(tmp_path, "b.zip")
    with pytest.raises(ValueError, match=r"has no training data: give files .* packed and not read: b\.zip"):
        found(tmp_path)
    with pytest.raises(ValueError, match=r"b\.zip is packed: unpack it"):
        found(tmp_path / "b.zip")


def test_tar_files_beside_files(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "sub").mkdir()
    tar(tmp_path / "sub" / "s.TAR", "k.png", "k.txt")
    tar(tmp_path / "t.tar", "k.png")
    assert found(tmp_path)[0] == {"a": ["image"], "sub/s.TAR/k": ["image", "text"], "t.tar/k": ["image"]}


def test_links_in_tar_files(tmp_path):
    hard, symbolic = tarfile.LNKTYPE, tarfile.SYMTYPE
    links = [("y/b.png", "x/a.png", hard), ("y/c.png", "../y/b.png", symbolic), ("d.png", "absent.png", symbolic)]
    path = tar(tmp_path / "s.tar", "x/a.png", links=links)
    with pytest.raises(
        ValueError, match=r"s\.tar/d\.png is no ordinary file, or a link to a file outside that tar file"
    ):
        find_entries(path)
    entries = find_entries(path, broken=Broken(skip=True))
    assert [entry.name for entry in entries] == ["s.tar/x/a", "s.tar/y/b", "s.tar/y/c"]
    for entry in entries:
        with as_file(entry.contents["image"]) as file:
            assert file.read_bytes() == b"x/a.png"


def test_damaged_tar_files(tmp_path):
    path = tar(tmp_path / "s.tar", "a.png", "b.png", "c.png")
    whole = path.read_bytes()
    path.write_bytes(whole[:1024] + b"damage" * 100 + whole[1624:])
    with pytest.raises(ValueError, match=r"s\.tar cannot be read .*goes on after its end at byte 1024"):
        find_entries(path)
    path.write_bytes(whole + whole)
    with pytest.raises(ValueError, match="several joined ones"):
        find_entries(path)
    path.write_bytes(whole[: 3 * 1024])
    assert found(path)[1] == [f"{path} has no end mark, so that it may have been cut off: check it."]
    path.write_bytes(whole[: 2 * 1024 + 514])
    with pytest.raises(ValueError, match="unexpected end of data"):
        find_entries(path)
    with pytest.raises(FileNotFoundError, match=r"There is no shard .*s-1\.tar"):
        find_entries(tmp_path / "s-{1..2}.tar")


def test_two_files_of_one_kind(tmp_path):
    touch(tmp_path, "a.png", "a.JPG", "a.txt", "b.png")
    with pytest.raises(ValueError, match=r"a\.JPG and .*a\.png have one name and are both image"):
        found(tmp_path)
    broken = Broken(skip=True)
    assert found(tmp_path, broken)[0] == {"b": ["image"]}
    assert [fault.entry for fault in broken.faults] == ["a"]


@pytest.mark.parametrize("ending", ["webp", "avif"])
def test_animated_images_are_videos(tmp_path, ending):
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    try:
        first.save(tmp_path / f"still.{ending}")
        first.save(tmp_path / f"moving.{ending}", save_all=True, append_images=[second], duration=100)
    except (KeyError, OSError):
        pytest.skip(f"Pillow was built without {ending}")
    assert found(tmp_path)[0] == {"moving": ["video"], "still": ["image"]}
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(tmp_path / f"moving.{ending}", f"a.{ending}")
    assert found(tmp_path / "s.tar")[0] == {"s.tar/a": ["video"]}


def test_metadata_of_hugging_face(tmp_path):
    touch(tmp_path, "train/a.png", "train/a.wav", "train/x/b.png", "train/alone.png", "train/alone.txt")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text,label\na.png,one,3\nx/../x/b.png,two,4\n")
    names, notes = found(tmp_path)
    assert names == {
        "train/metadata.csv line 2": ["audio", "image", "text"],
        "train/metadata.csv line 3": ["image", "text"],
        "train/alone": ["image", "text"],
    }
    assert notes == [f"{tmp_path}/train/metadata.csv has columns that are not used: label."]
    assert find_entries(tmp_path)[0].contents["text"] == "one"


def test_metadata_of_another_kind(tmp_path):
    touch(tmp_path, "a.png", "a.txt")
    (tmp_path / "metadata.csv").write_text("a|b\nc|d\n")
    names, notes = found(tmp_path)
    assert names == {"a": ["image", "text"]} and notes[0].endswith("It is not used.")
    (tmp_path / "metadata.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="holds several of metadata.csv"):
        found(tmp_path)


def test_names_that_are_not_unicode(tmp_path):
    try:
        with open(os.fsencode(tmp_path) + b"/a\xff.png", "wb") as file:
            file.write(b"x")
        with open(os.fsencode(tmp_path) + b"/a\xff.jpg", "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system has none")
    with pytest.raises(ValueError) as caught:
        find_entries(tmp_path)
    str(caught.value).encode()


def test_members_are_read_whole(tmp_path):
    own_data.write_image(tmp_path / "a.png", "red")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(tmp_path / "a.png", "k.png")
    member = find_entries(tmp_path / "s.tar")[0].contents["image"]
    assert isinstance(member, Member)
    with as_file(member) as file:
        assert file.read_bytes() == (tmp_path / "a.png").read_bytes()
