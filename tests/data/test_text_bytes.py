"""Text files in the encodings that users have."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codi_backend.data.text_bytes import decode_text, read_caption

TEXT = "Ein rotes Café – 猫 🐈"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_encodings_that_a_mark_states(tmp_path, mark, encoding):
    file = tmp_path / "a.txt"
    file.write_bytes(mark + f"\r\n {TEXT} \n".encode(encoding))
    assert read_caption(file) == TEXT


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "shift-jis", "gbk"])
def test_other_code_pages_are_refused_with_the_line(tmp_path, encoding, end):
    word = {"cp1251": "кот", "shift-jis": "日本", "gbk": "猫咪"}.get(encoding, "café")
    file = tmp_path / "a.txt"
    file.write_bytes(f"one{end}{end}a {word}{end}".encode(encoding))
    with pytest.raises(ValueError, match=r"Line 3 of .*a\.txt is not text in UTF-8.*save the file as UTF-8"):
        read_caption(file)


@pytest.mark.parametrize("data", ["one\ntwo".encode("utf-16-le"), "猫".encode("iso-2022-jp"), b"one\x00"])
def test_what_is_valid_utf_8_by_chance_is_refused(data):
    with pytest.raises(ValueError, match=r"Line 1 of a\.txt holds the control character U\+00"):
        decode_text(data, "a.txt")


def test_half_a_character_after_a_mark_is_refused():
    with pytest.raises(ValueError, match=r"Line 2 of a\.txt is not text in UTF-16, by its byte order mark"):
        decode_text("a\nb".encode("utf-16") + b"x", "a.txt")


def test_files_that_are_no_captions(tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "long.txt").write_bytes(b"x" * 1_000_001)
    for name, message in {"absent": "There is no file", "empty": "is empty", "long": "more than 1000000 bytes"}.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_caption(tmp_path / f"{name}.txt")
    with pytest.raises(ValueError, match="is a folder"):
        read_caption(tmp_path)
    (tmp_path / "long.txt").write_bytes(b"x" * 1_000_000)
    assert read_caption(tmp_path / "long.txt") == "x" * 1_000_000


@pytest.mark.property
@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_any_bytes_are_text_in_utf_8_or_refused(data):
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return
    try:
        text = decode_text(data, "a.txt")
    except ValueError as error:
        assert "of a.txt" in str(error)
        assert b"\0" in data or b"\x1b" in data or not is_utf_8(data)
    else:
        assert text.encode() == data


@pytest.mark.property
@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\x1b"), max_size=30),
       st.sampled_from(["utf-8-sig", "utf-16", "utf-32", "utf-8"]))  # fmt: skip
def test_any_text_comes_back(text, encoding):
    if encoding == "utf-8" and text.startswith("\ufeff"):
        return
    assert decode_text(text.encode(encoding), "a.txt") == text


def is_utf_8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
