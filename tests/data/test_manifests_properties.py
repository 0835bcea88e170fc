"""Random rows, separators, quotes and encodings: exactly what was written, or a sentence with the name of the file."""

import csv
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codi_backend.data.broken import Broken
from codi_backend.data.entries import find_entries

pytestmark = pytest.mark.property

# Bare carriage returns would be line ends outside quotes; NUL and ESC are refused.
LETTERS = st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\x1b\r")
CAPTION = st.text(LETTERS | st.sampled_from(',;\t|" \n.é'), min_size=1, max_size=25).map(str.strip).filter(bool)
CAPTIONS = CAPTION.filter(lambda text: "." not in text or len(text.split()) > 1 and "\n" not in text)
NAMES = st.sampled_from(["a.png", "sub/b.PNG", "é.png", "with space.jpg", "a;b.png", "a,b.png", "c|d.png", "x"])
ROWS = st.lists(st.tuples(NAMES, CAPTIONS, st.text(LETTERS, max_size=5)), min_size=1, max_size=6)
HEADERS = st.sampled_from(
    [
        ("image", "text", "id"),
        (" Image", "CAPTION ", "a b"),
        ("image_file_name", "text", "x,y"),
        ("IMAGE", "Text", "z|"),
    ]
)


def read(name, data, broken=None):
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        entries = find_entries(path, broken=broken)
        return [{k: str(v).removeprefix(f"{folder}/") for k, v in e.contents.items()} for e in entries]


@given(
    ROWS, HEADERS, st.permutations(range(3)), st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["m.csv", "m.CSV", "m.tsv"]),
)  # fmt: skip
def test_tables(rows, header, order, separator, end, quoting, encoding, name):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow([header[i] for i in order])
    writer.writerows([row[i] for i in order] for row in rows)
    entries = read(name, text.getvalue().encode(encoding))
    assert entries == [{"image": image, "text": caption} for image, caption, _ in rows]


@given(ROWS, st.booleans(), st.booleans(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.sampled_from("\n\r "))
def test_json(rows, escaped, array, encoding, between):
    objects = [{"Image": image, "text ": caption, "other": {"nested": [other]}} for image, caption, other in rows]
    if array:
        text = json.dumps(objects, ensure_ascii=escaped, indent=1 if between == "\n" else None)
    else:
        ends = "\n" if between == " " else between
        text = ends.join(json.dumps(row, ensure_ascii=escaped) for row in objects)
    entries = read("m.json" if array else "m.jsonl", text.encode(encoding))
    assert entries == [{"image": image, "text": caption} for image, caption, _ in rows]


@given(st.sampled_from(["m.csv", "m.tsv", "m.jsonl", "m.json"]), st.binary(max_size=60) | st.text(
    st.sampled_from('text,image;a.png\n\r\t"{}[]:\\ 1é'), max_size=60).map(str.encode), st.booleans())  # fmt: skip
def test_anything_else_ends_in_a_sentence(name, data, skip):
    head = {"m.csv": b"image,text\n", "m.tsv": b"image\ttext\n"}.get(name, b"")
    try:
        entries = read(name, head + data, Broken(skip))
    except ValueError as error:
        assert name in str(error) and str(error).encode()
        assert type(error) is not UnicodeDecodeError and not isinstance(error, json.JSONDecodeError)
    else:
        assert entries


@given(ROWS, st.data())
def test_one_field_too_many_or_too_few_is_refused_with_its_line(rows, data):
    faulty = data.draw(st.integers(0, len(rows) - 1))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", "text"])
    for number, (image, caption, _) in enumerate(rows):
        if number == faulty:
            line = text.getvalue().count("\n") + 1
            writer.writerow(data.draw(st.sampled_from([[image], [image, caption, "more"]])))
        else:
            writer.writerow([image, caption])
    with pytest.raises(ValueError, match=rf"Line {line} of .*m\.csv has \d field"):
        read("m.csv", text.getvalue().encode())
    broken = Broken(skip=True)
    if len(rows) > 1:
        expected = [{"image": image, "text": caption} for n, (image, caption, _) in enumerate(rows) if n != faulty]
        assert read("m.csv", text.getvalue().encode(), broken) == expected and len(broken.faults) == 1
