"""Images of every mode, depth, colour space and orientation, and metadata that are broken."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from media_samples import chunk, colour, display_p3, grey_profile, inverted_cmyk, levels, write_png
from PIL import Image, ImageCms

from codi_backend.media.read import read_image, read_video

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def words(*values):
    return struct.pack(f">{len(values)}H", *values)


@pytest.mark.parametrize(
    ("depth", "colours", "row", "expected"),
    [
        (16, RGB, words(0x8000, 0x4000, 0xFFFF) * 2, [128, 64, 255]),
        (16, RGB_ALPHA, words(0, 0xFFFF, 0, 0x6666) * 2, [153, 255, 153]),
        (16, GREY_ALPHA, words(0, 0x4000) * 2, [191, 191, 191]),
        (16, GREY, words(200, 150), [1, 1, 1]),  # dark: white is 65535 whatever the brightest pixel
        (16, GREY, words(0x8000, 0x8000), [128, 128, 128]),
        (1, GREY, bytes([0xC0]), [255, 255, 255]),
        (2, GREY, bytes([0x50]), [85, 85, 85]),
        (4, GREY, bytes([0x77]), [119, 119, 119]),
    ],
)
def test_depths_of_png(tmp_path, depth, colours, row, expected):
    found = colour(write_png(tmp_path / "a.png", depth, colours, row), 0, 0)
    assert np.abs(np.subtract(found, expected)).max() <= 1


@pytest.mark.parametrize(
    ("depth", "colours", "row", "key"),
    [
        (16, GREY, words(0x1234, 0x1235), words(0x1234)),
        (16, RGB, words(0x1234, 0x5678, 0x9ABC, 0, 0, 0), words(0x1234, 0x5678, 0x9ABC)),
        (8, GREY, bytes([9, 10]), words(9)),
        (8, RGB, bytes([9, 8, 7, 9, 8, 6]), words(9, 8, 7)),
        (4, GREY, bytes([0x75]), words(7)),
        (2, GREY, bytes([0x60]), words(1)),
        (1, GREY, bytes([0x00]), words(0)),
    ],
)
def test_transparent_colours_of_png(tmp_path, depth, colours, row, key):
    path = write_png(tmp_path / "a.png", depth, colours, row, chunk(b"tRNS", key))
    assert colour(path, 0, 0) == [255, 255, 255]
    if depth > 1:
        assert max(colour(path, 0, 0.5)) < 200


def test_palettes_have_transparency(tmp_path):
    palette = chunk(b"PLTE", bytes([0, 0, 0, 10, 20, 30])) + chunk(b"tRNS", bytes([255, 102]))
    path = write_png(tmp_path / "a.png", 8, PALETTE, bytes([1, 0]), palette)
    assert colour(path, 0, 0) == [157, 161, 165] and colour(path, 0, 0.5) == [0, 0, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full((2, 2), 200, np.int32), 1),
        (np.full((2, 2), 32768, np.int32), 128),
        (np.full((2, 2), 300, np.uint16), 1),
        (np.full((2, 2), 0.5, np.float32), 128),
        (np.full((2, 2), 0.01, np.float32), 3),
        (np.full((2, 2), 1.5, np.float32), 255),  # a highlight
        (np.full((2, 2), -0.5, np.float32), 0),
    ],
)
def test_white_follows_from_the_type(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert colour(tmp_path / "a.tiff") == [expected] * 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 2), 128, np.float32), "up to 128, where white is 1.0: divide"),
        (np.full((2, 2), 2**30, np.int32), "where white is 65535: divide"),
        (np.float32([[0, np.inf]]), "not finite"),
    ],
)
def test_values_that_their_type_cannot_have(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=rf"a\.tiff .*{message}"):
        read_image(tmp_path / "a.tiff")


# --- colour


# (150, 200, 90) of that profile as light is (0.311, 0.586, 0.101); in the primaries of sRGB (0.249, 0.598, 0.059).
CONVERTED = [137, 203, 69]


def test_profiles_are_converted(tmp_path):
    Image.new("RGB", (4, 4), (150, 200, 90)).save(tmp_path / "a.png", icc_profile=display_p3())
    assert np.abs(np.subtract(colour(tmp_path / "a.png"), CONVERTED)).max() <= 2
    Image.new("RGBA", (4, 4), (150, 200, 90, 0)).save(tmp_path / "a.png", icc_profile=display_p3())
    assert colour(tmp_path / "a.png") == [255, 255, 255]


@pytest.mark.parametrize("ending", ["png", "jpg", "tiff"])
def test_profiles_of_greys(tmp_path, ending):
    Image.new("L", (8, 8), 128).save(tmp_path / f"a.{ending}", icc_profile=grey_profile(1.0))
    found = colour(tmp_path / f"a.{ending}")
    assert np.abs(np.subtract(found, 188)).max() <= 1  # half of the light


def test_profiles_of_printers(tmp_path):
    pixels = np.zeros((8, 16, 4), np.uint8)
    pixels[:, 8:, 3] = 255
    Image.fromarray(pixels, "CMYK").save(tmp_path / "a.tiff", icc_profile=inverted_cmyk())
    assert max(colour(tmp_path / "a.tiff", 0.5, 0.2)) < 10 and min(colour(tmp_path / "a.tiff", 0.5, 0.8)) > 245


def test_lab(tmp_path):
    source = Image.new("RGB", (8, 8), (200, 50, 100))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(source, srgb, lab, outputMode="LAB").save(tmp_path / "a.tiff")
    assert np.abs(np.subtract(colour(tmp_path / "a.tiff"), (200, 50, 100))).max() <= 3


@pytest.mark.parametrize(
    ("kind", "content", "level", "expected"),
    [
        (b"cICP", [9, 16, 0, 1], 148, 242),  # PQ: the white of SDR, nearly
        (b"cICP", [9, 16, 0, 1], 112, 136),  # PQ: 50 of 203 cd/m2
        (b"cICP", [9, 18, 0, 1], 191, 241),  # HLG: the same white
        (b"cICP", [1, 8, 0, 1], 55, 128),  # linear
        (b"cICP", [1, 13, 0, 1], 148, 148),  # sRGB
        (b"gAMA", list((100000).to_bytes(4, "big")), 55, 128),
        (b"gAMA", list((45455).to_bytes(4, "big")), 148, 148),
    ],
)
def test_codings_of_png(tmp_path, kind, content, level, expected):
    path = write_png(tmp_path / "a.png", 8, RGB, bytes([level] * 6), chunk(kind, bytes(content)))
    assert np.abs(np.subtract(colour(path), expected)).max() <= 2


def test_wide_gamut_of_avif(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (148, 148, 148)).save(buffer, "AVIF", quality=100, subsampling="4:4:4")
    data = buffer.getvalue()
    at = data.index(b"colrnclx") + 8
    (tmp_path / "a.png").write_bytes(data[:at] + bytes([0, 9, 0, 16]) + data[at + 4 :])
    assert np.abs(np.subtract(colour(tmp_path / "a.png"), 242)).max() <= 3


# --- orientation and metadata


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
def test_orientations(tmp_path, ending, orientation):
    corners = {1: "abcd", 2: "badc", 3: "dcba", 4: "cdab", 5: "acbd", 6: "cadb", 7: "dbca", 8: "bdac"}
    levels = {"a": 0, "b": 80, "c": 160, "d": 240}
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.uint8([[0, 80], [160, 240]])).resize((32, 16), Image.Resampling.NEAREST).convert("RGB")
    image.save(tmp_path / f"a.{ending}", exif=exif)
    pixels = read_image(tmp_path / f"a.{ending}")
    assert pixels.shape == ((3, 16, 32) if orientation < 5 else (3, 32, 16))
    found = [colour(tmp_path / f"a.{ending}", *place)[0] for place in ((0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8))]
    assert np.abs(np.subtract(found, [levels[corner] for corner in corners[orientation]])).max() <= 12


BROKEN_CHUNKS = {
    "text with a wrong sum": struct.pack(">I", 3) + b"tEXta\0b" + b"\0\0\0\0",
    "a profile that is none": chunk(b"iCCP", b"x\0\0" + zlib.compress(b"nonsense" * 20)),
    "a profile not deflated": chunk(b"iCCP", b"x\0\0nonsense"),
    "a profile for CMYK": chunk(b"iCCP", b"x\0\0" + zlib.compress(inverted_cmyk())),
    "EXIF cut short": chunk(b"eXIf", b"MM\0*\0\0"),
    "EXIF of nonsense": chunk(b"eXIf", b"b'Exif\\x00\\x00MM"),
    "XMP cut short": chunk(b"iTXt", b"XML:com.adobe.xmp\0"),
    "a short gAMA": chunk(b"gAMA", b"1"),
    "gAMA of 0": chunk(b"gAMA", bytes(4)),
    "a short cICP": chunk(b"cICP", b"\x09"),
    "a short pHYs": chunk(b"pHYs", b""),
    "a short sRGB": chunk(b"sRGB", b""),
    "much text": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"0," * 2_000_000)),
    "very many texts": chunk(b"zTXt", b"a\0\0" + zlib.compress(b"0" * 900_000)) * 80,
}


@pytest.mark.parametrize("fault", BROKEN_CHUNKS)
def test_broken_metadata_of_png(tmp_path, fault):
    path = write_png(tmp_path / "a.png", 8, RGB, bytes([10, 128, 240] * 2), BROKEN_CHUNKS[fault])
    assert colour(path) == [10, 128, 240]


@pytest.mark.parametrize("ending", ["jpg", "webp", "tiff", "png"])
@pytest.mark.parametrize("exif", [b"Exif\0\0MM", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"b'Exif\\x00"])
def test_broken_metadata(tmp_path, ending, exif, capfd):
    options = {} if ending == "tiff" else {"exif": exif}
    Image.new("RGB", (16, 16), (10, 128, 240)).save(tmp_path / f"a.{ending}", icc_profile=b"nonsense", **options)
    assert np.abs(np.subtract(colour(tmp_path / f"a.{ending}"), [10, 128, 240])).max() <= 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert levels(read_video(tmp_path / f"a.{ending}", 1)) == pytest.approx([0.494], abs=0.02)
    assert capfd.readouterr().err == ""


def test_broken_exif_of_avif(tmp_path):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = "maker"
    Image.new("RGB", (16, 16), (10, 128, 240)).save(buffer, "AVIF", exif=exif, quality=100)
    data = buffer.getvalue()
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    assert content in data
    (tmp_path / "a.png").write_bytes(data.replace(content, b"\xff" * len(content)))
    assert np.abs(np.subtract(colour(tmp_path / "a.png"), [10, 128, 240])).max() <= 8


def test_large_profiles_of_png(tmp_path):
    profile = display_p3(bytes(3_000_000))  # Pillow refuses more than a megabyte
    content = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))
    path = write_png(tmp_path / "a.png", 8, RGB, bytes([150, 200, 90] * 2), content)
    assert np.abs(np.subtract(colour(path), CONVERTED)).max() <= 2
