"""Manifests as users write them: separators, quotes, encodings, columns, paths."""

import csv
import json

import pytest

from codi_backend.data.broken import Broken
from codi_backend.data.entries import find_entries


def found(path, content, skip=None):
    """Entries as dicts of relative paths and captions, and the notes."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    notes = []
    entries = find_entries(path, notes.append, skip)
    relative = [{k: str(v).replace(f"{path.parent}/", "") for k, v in e.contents.items()} for e in entries]
    return [e.name for e in entries], relative, notes


TWO = [{"image": "a.png", "text": "red, and blue"}, {"image": "b.png", "text": 'a 12" disk'}]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_line_ends_and_encodings(tmp_path, separator, end, encoding):
    lines = ["image,text", 'a.png,"red, and blue"', "", 'b.png,"a 12"" disk"']
    quoted = 'a.png,"red, and blue"'.replace("a.png,", f"a.png{separator}")
    text = end.join([lines[0].replace(",", separator), quoted, "", lines[3].replace(",", separator)])
    names, entries, notes = found(tmp_path / "m.csv", text.encode(encoding))
    assert (names, entries, notes) == (["line 2", "line 4"], TWO, [])


def test_tsv_and_what_excel_writes_first(tmp_path):
    assert found(tmp_path / "m.tsv", "image\ttext\na.png\tred, and blue\n")[1] == TWO[:1]
    names, entries, _ = found(tmp_path / "m.csv", "sep=;\r\nimage;text\r\na.png;red, and blue\r\n")
    assert (names, entries) == (["line 3"], TWO[:1])


def test_names_of_columns(tmp_path):
    names, entries, notes = found(tmp_path / "m.csv", "id, IMAGE ,Caption,\n7, a.png , a star ,\n,,,\n")
    assert (names, entries) == (["line 2"], [{"image": "a.png", "text": "a star"}])
    assert notes == [f"{tmp_path}/m.csv has columns that are not used: id."]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_file_names_of_hugging_face(tmp_path, ending):
    rows = [{"file_name": f"x/a.{e}", "text": e} for e in ("PNG", "wav", "mp4")]
    rows.append({"image_file_name": "a.dat", "audio_file_name": "b.flac", "text": "both"})
    if ending == "csv":
        content = "file_name,image_file_name,audio_file_name,text\n" + "".join(
            ",".join(row.get(k, "") for k in ("file_name", "image_file_name", "audio_file_name", "text")) + "\n"
            for row in rows
        )
    else:
        content = json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows))
    assert found(tmp_path / f"m.{ending}", content)[1] == [
        {"image": "x/a.PNG", "text": "PNG"},
        {"audio": "x/a.wav", "text": "wav"},
        {"video": "x/a.mp4", "text": "mp4"},
        {"image": "a.dat", "audio": "b.flac", "text": "both"},
    ]


def test_paths(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").touch()
    rows = [{"image": "sub\\a.png"}, {"image": str(tmp_path / "b.png")}, {"image": "./sub/../b.png"}]
    entries = found(tmp_path / "m.jsonl", "\n".join(map(json.dumps, rows)))[1]
    assert [e["image"] for e in entries] == ["sub/a.png", "b.png", "sub/../b.png"]


def test_captions_in_files(tmp_path):
    (tmp_path / "m.csv").write_text("image,text\na.png,captions/a.txt\nb.png,see a.txt\n")
    first, second = find_entries(tmp_path / "m.csv")
    assert first.contents["text"] == tmp_path / "captions" / "a.txt"
    assert second.contents["text"] == "see a.txt"


def test_huge_fields(tmp_path):
    long, limit = "x" * 200_000, csv.field_size_limit()
    assert found(tmp_path / "m.csv", f'image,text\na.png,"{long}"\n')[1] == [{"image": "a.png", "text": long}]
    assert csv.field_size_limit() == limit


def test_lines_inside_quotes(tmp_path):
    names, entries, _ = found(tmp_path / "m.csv", 'image,text\na.png,"two\r\nlines, here"\nb.png,x\n')
    assert entries[0]["text"] == "two\r\nlines, here" and names == ["line 2", "line 4"]


def test_separators_of_json_lines_are_line_ends_alone(tmp_path):
    text = "one\u2028two\x85three"
    content = json.dumps({"text": text}, ensure_ascii=False) + "\r\n" + json.dumps({"text": "b"}) + "\r"
    assert [e["text"] for e in found(tmp_path / "m.jsonl", content)[1]] == [text, "b"]


FAULTS = {
    "more.csv": ("image,text\na.png,red, and blue\nb.png,green\n", r"Line 2 of .*more\.csv has 3 field\(s\).* has 2"),
    "fewer.csv": ("text;image\n\nb\na;b.png\n", r"Line 3 of .*fewer\.csv has 1 field\(s\), but the first line has 2"),
    "swallowed.csv": ('image,text\na.png,"red\nb.png,blue"\nc.png,x\n', "quoted field that begins in line 2 of"),
    "address.csv": (
        "image\nhttps://x.org/a.png\n",
        r"Line 2 .* has the address https://x\.org/a\.png: nothing",
    ),
    "bytes.jsonl": ('{"image": "data:image/png;base64,AAAA"}\n', "Line 1 .* has the address data:image/png"),
    "both.csv": ("text,caption\na,b\n", r"Line 2 of .*both\.csv has two values for text"),
    "case.jsonl": ('{"text": "a", "Text": "b"}\n', "Line 1 of .* has two values for text"),
    "ending.csv": ("file_name,text\na.dat,x\n", r"Line 2 of .* names a\.dat, whose ending has no modality"),
    "nested.jsonl": ('{"text": "a"}\n{"image": {"path": "a.png"}}\n', r"Line 2 of .* has {'path': 'a.png'} as image"),
    "nan.jsonl": ('{"text": NaN, "image": "a.png"}\n', r"Line 1 of .*nan\.jsonl has nan as text: give a text"),
    "list.json": ('[{"text": ["a", "b"]}]', r"Object 1 of .*list\.json has \['a', 'b'\] as text"),
    "twice.jsonl": ('{"text": "a", "text": "b"}\n', r"Line 1 of .* is not JSON \(it has the key 'text' twice\)"),
    "deep.jsonl": ("[" * 100_000 + "\n", r"Line 1 of .*deep\.jsonl is not JSON"),
    "long.jsonl": ('{"text": ' + "1" * 5000 + "}\n", r"Line 1 of .*long\.jsonl is not JSON"),
    "half.jsonl": (
        '{"text": "\\ud800"}\n',
        r"Line 1 of .*half\.jsonl has text with a NUL or characters that are not Unicode",
    ),
    "nul.jsonl": (
        '{"image": "a\\u0000.png"}\n',
        r"Line 1 of .*nul\.jsonl has image with a NUL or characters that are not Unicode",
    ),
    "number.json": ('[{"text": "a"}, 3]', r"Item 2 of the array in .*number\.json is not an object"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_rows_are_refused_or_left_out(tmp_path, name):
    content, message = FAULTS[name]
    with pytest.raises(ValueError, match=message) as caught:
        found(tmp_path / name, content)
    assert "--skip-broken" in str(caught.value)
    broken = Broken(skip=True)
    try:
        entries = found(tmp_path / name, content, broken)[1]
    except ValueError as error:  # nothing else is there
        entries = []
        assert "has no training data" in str(error)
    assert len(broken.faults) == 1
    assert entries == {
        "more.csv": [{"image": "b.png", "text": "green"}],
        "fewer.csv": [{"image": "b.png", "text": "a"}],
        "swallowed.csv": [{"image": "c.png", "text": "x"}],
        "nested.jsonl": [{"text": "a"}],
        "number.json": [{"text": "a"}],
    }.get(name, [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image,text\na.png,café\n".encode("cp1252"), r"Line 2 of .*a\.csv is not text in UTF-8"),
        ("a.jsonl", '{"text": "a"}\n{"text": "é"}\n'.encode("latin-1"), r"Line 2 of .*a\.jsonl is not text in UTF-8"),
        ("a.csv", b"image,text\na.png,x\0y\n", r"Line 2 of .*a\.csv holds the control character U\+0000"),
        ("a.csv", b'image,text\na.png,"red\nb.png,blue\nc.png,x', r"Line 2 of .*a\.csv has quotes that do not fit"),
        ("a.csv", b'image,text\na.png,x\na.png,"red" and blue\n', r"Line 3 of .*a\.csv has quotes that do not fit"),
        ("a.csv", b"text,image,Text \nx,a.png,y\n", r"a\.csv has two columns 'Text'"),
        ("a.csv", b"a.png,red\nb.png,blue\n", r"a\.csv has none of the columns text, image, video, audio"),
        ("a.csv", b"", r"a\.csv is empty"),
        ("a.csv", b"\n\n", r"a\.csv has no training data: it has no rows"),
        ("a.json", b'{"a.png": "red"}', r"a\.json is not an array of objects"),
        ("a.json", b'{"text": "a"}\n{"text": "b"}', r"a\.json is not JSON .*objects by line belong into a \.jsonl"),
    ],
)
def test_manifests_that_cannot_be_understood(tmp_path, name, content, message):
    for broken in (None, Broken(skip=True)):
        with pytest.raises(ValueError, match=message):
            found(tmp_path / name, content, broken)


def test_many_faults_are_counted(tmp_path):
    with pytest.raises(ValueError, match="Line 6 of .* There are 2 more. Mend it"):
        found(tmp_path / "m.csv", "image,text\n" + "a.png\n" * 7)


SPLITS = [("a", "train"), ("b", "Test"), ("c", ""), ("d", " training "), ("e", "validation")]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_rows_of_other_splits_are_left_out(tmp_path, ending):
    if ending == "csv":
        content = "image,text,Split\n" + "".join(f"{name}.png,{name},{split}\n" for name, split in SPLITS)
    else:
        content = "\n".join(json.dumps({"image": f"{n}.png", "text": n, "split": s or None}) for n, s in SPLITS)
    path = tmp_path / f"m.{ending}"
    _, entries, notes = found(path, content)
    assert [entry["text"] for entry in entries] == ["a", "c", "d"]
    assert notes == ["2 row(s) have another split than train: test (1), validation (1)."]
    assert [entry.contents["text"] for entry in find_entries(path, split="test")] == ["b"]


def test_files_of_other_splits_in_a_folder(tmp_path):
    for name, _ in SPLITS:
        (tmp_path / f"{name}.png").write_bytes(b"png")
    (tmp_path / "more.png").write_bytes(b"png")
    rows = "".join(f"{name}.png,{name},{split}\n" for name, split in SPLITS)
    (tmp_path / "metadata.csv").write_text("file_name,text,split\n" + rows)
    assert [entry.contents.get("text") for entry in find_entries(tmp_path)] == ["a", "c", "d", None]


def test_data_without_rows_to_train_on(tmp_path):
    (tmp_path / "m.csv").write_text("image,text,split\na.png,a,test\n")
    with pytest.raises(ValueError, match=r"has no training data.*1 row\(s\) have another split than train: test \(1\)"):
        find_entries(tmp_path / "m.csv")
