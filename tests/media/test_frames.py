"""Frames of videos as players show them: orientation, shape, colour, transparency."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from media_samples import colour, grey, levels, write_film, write_planes

from codi_backend.media.read import read_video

QUARTERS = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255), "d": (255, 255, 255)}


def quarters(width=128, height=64):
    """Red, green; blue, white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for (row, column), value in zip(((0, 0), (0, 1), (1, 0), (1, 1)), QUARTERS.values()):
        rows, columns = (
            slice(row * height // 2, (row + 1) * height // 2),
            slice(column * width // 2, (column + 1) * width // 2),
        )
        pixels[rows, columns] = value
    return pixels


def corners(path):
    """The letters of the quarters from the top left to the bottom right."""
    places = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
    found = [np.array(colour(path, *place)) for place in places]
    return "".join(min(QUARTERS, key=lambda name: np.abs(found[k] - QUARTERS[name]).sum()) for k in range(4))


# Matrices of QuickTime, [x', y'] = [x, y] @ [[a, b], [c, d]] with y downwards, and where the quarters are then.
ORIENTATIONS = [
    ((1, 0, 0, 1), "abcd"),
    ((-1, 0, 0, 1), "badc"),
    ((-1, 0, 0, -1), "dcba"),
    ((1, 0, 0, -1), "cdab"),
    ((0, 1, 1, 0), "acbd"),
    ((0, 1, -1, 0), "cadb"),
    ((0, -1, -1, 0), "dbca"),
    ((0, -1, 1, 0), "bdac"),
]


@pytest.mark.parametrize(("matrix", "expected"), ORIENTATIONS)
def test_display_matrices(tmp_path, matrix, expected):
    path = write_film(tmp_path / "a.mp4", [(k / 10, quarters()) for k in range(3)])
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    shifts = [size << 16 if negative else 0 for size, negative in ((128, min(a, c) < 0), (64, min(b, d) < 0))]
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, *shifts, 0x40000000)
    path.write_bytes(data)
    assert read_video(path, 1).shape == ((3, 1, 64, 128) if matrix[0] else (3, 1, 128, 64))
    assert corners(path) == expected


@pytest.mark.parametrize("ending", ["mp4", "ts", "mkv"])
@pytest.mark.parametrize(
    ("ratio", "shape"), [((4, 3), (72, 128)), ((3, 4), (96, 96)), ((1, 1), (72, 96)), ((99, 1), (72, 96))]
)
def test_pixels_that_are_not_square(tmp_path, ending, ratio, shape):
    rows, columns = np.mgrid[:72, :96]
    pixels = np.zeros((72, 96, 3), np.uint8)
    pixels[(rows - 36) ** 2 * (ratio[1] / ratio[0]) ** 2 + (columns - 48) ** 2 < 20**2] = 255
    path = tmp_path / f"a.{ending}"
    write_film(path, [(k / 10, pixels) for k in range(3)], settings={"sample_aspect_ratio": Fraction(*ratio)})
    pixels = read_video(path, 1)[:, 0]
    assert pixels.shape[1:] == shape
    if ratio[0] < 10:
        places = (pixels[0] > 0.5).nonzero()
        height, width = (places.max(0).values - places.min(0).values + 1).tolist()
        assert abs(width - height) <= 3


def test_sizes_that_change(tmp_path):
    data = b""
    for k, size in enumerate([(64, 64), (96, 96), (128, 64)]):
        path = tmp_path / f"{k}.ts"
        write_film(path, [(k + step / 10, grey(0.2 + 0.3 * k, size)) for step in range(10)])
        data += path.read_bytes()
    (tmp_path / "a.ts").write_bytes(data)
    pixels = read_video(tmp_path / "a.ts", 3, 1.0)
    assert pixels.shape == (3, 3, 64, 64)
    assert levels(pixels[:, :2]) == pytest.approx([0.2, 0.5], abs=0.02)
    # Twice as wide as high: black above and below.
    assert levels(pixels[:, 2:, 20:44]) == pytest.approx([0.8], abs=0.03)
    assert levels(pixels[:, 2:, :12]) == levels(pixels[:, 2:, 52:]) == pytest.approx([0], abs=0.03)


LIMITED, FULL = 1, 2
BT709, BT601, BT2020 = 1, 5, 9


@pytest.mark.parametrize(
    ("planes", "options"),
    [
        ((81, 90, 240), {"colorspace": BT601, "color_range": LIMITED}),
        ((63, 102, 240), {"colorspace": BT709, "color_range": LIMITED}),
        ((74, 97, 240), {"colorspace": BT2020, "color_range": LIMITED}),
        ((76, 85, 255), {"colorspace": BT601, "color_range": FULL}),
        ((54, 99, 255), {"colorspace": BT709, "color_range": FULL}),
        ((81, 90, 240), {}),
        ((63, 102, 240), {"size": (1280, 720)}),
        ((76, 85, 255), {"pixel_format": "yuvj420p", "codec": "h264"}),
        ((252, 360, 960), {"pixel_format": "yuv420p10le", "colorspace": BT709, "color_range": LIMITED}),
    ],
)
def test_red_is_red(tmp_path, planes, options):
    path = write_planes(tmp_path / "a.mkv", planes, **options)
    assert np.abs(np.subtract(colour(path), (255, 0, 0))).max() <= 4


def test_unknown_colour_spaces_are_refused(tmp_path):
    write_planes(tmp_path / "a.mkv", (81, 90, 240), colorspace=8, color_range=FULL)
    with pytest.raises(ValueError, match=r"a\.mkv has an unusual colour space \(number 8\): save it in BT\.709"):
        read_video(tmp_path / "a.mkv", 1)


def pq(light):
    """SMPTE ST 2084 for a light in cd/m2, as 10 bits of limited range."""
    power = (light / 10000) ** 0.1593017578125
    return round(64 + 876 * ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


@pytest.mark.parametrize(
    ("transfer", "luma", "expected"),
    [
        # sRGB of the light divided by that of reference white, 203 cd/m2; only what is near white is compressed.
        *((16, pq(light), expected) for light, expected in ((0, 0), (10, 63), (50, 136), (100, 186))),
        (18, 64 + 876 // 2, 136),  # HLG at a half: 50 cd/m2
    ],
)
def test_hdr_becomes_sdr(tmp_path, transfer, luma, expected):
    tags = {"colorspace": BT2020, "color_range": LIMITED, "color_primaries": BT2020, "color_trc": transfer}
    path = write_planes(tmp_path / "a.mkv", (luma, 512, 512), pixel_format="yuv420p10le", **tags)
    assert np.abs(np.subtract(colour(path), expected)).max() <= 2


@pytest.mark.parametrize(("transfer", "white"), [(16, pq(203)), (18, 64 + 876 * 3 // 4)])
def test_the_white_of_hdr_is_nearly_white(tmp_path, transfer, white):
    tags = {"colorspace": BT2020, "color_range": LIMITED, "color_primaries": BT2020, "color_trc": transfer}
    paths = [
        write_planes(tmp_path / f"{luma}.mkv", (luma, 512, 512), pixel_format="yuv420p10le", **tags)
        for luma in (white, 940)
    ]
    assert 230 <= min(colour(paths[0])) and colour(paths[0]) < colour(paths[1])


@pytest.mark.parametrize(
    ("ending", "codec", "pixel_format"),
    [
        ("webm", "libvpx-vp9", "yuva420p"),
        ("webm", "libvpx", "yuva420p"),
        ("mov", "prores_ks", "yuva444p10le"),
        ("mov", "qtrle", "argb"),
        ("mov", "png", "rgba"),
        ("mkv", "ffv1", "yuva420p"),
    ],
)
def test_transparency_lies_on_white(tmp_path, ending, codec, pixel_format):
    path = tmp_path / f"a.{ending}"
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[:, :32, 3], pixels[:, 32:, 3] = 255, 102
    options = {"auto-alt-ref": "0"} if "vpx" in codec else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for k in range(3):
            frame = av.VideoFrame.from_ndarray(pixels, "rgba").reformat(format=pixel_format)
            frame.pts, frame.time_base = k, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.abs(np.subtract(colour(path, 0.5, 0.2), (255, 0, 0))).max() <= 4
    assert np.abs(np.subtract(colour(path, 0.5, 0.8), (255, 153, 153))).max() <= 4
