"""Random images, audio, stamps and damage: each file gives the right values, or a sentence that names it."""

import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_samples import grey, levels, pitch, ramp, tone, write_film, write_wav
from PIL import Image

from codi_backend.media.read import probe, read_audio, read_image, read_video

pytestmark = pytest.mark.property

LOSSLESS = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "tiff": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"],
    "bmp": ["1", "L", "P", "RGB"],
    "webp": ["RGB", "RGBA"],
    "gif": ["L", "P"],
    "ppm": ["1", "L", "RGB"],
    "tga": ["L", "LA", "RGB", "RGBA"],
}
CASES = [(ending, mode) for ending, modes in LOSSLESS.items() for mode in modes]
BYTE = st.integers(0, 255)


@given(st.sampled_from(CASES), st.integers(1, 12), st.integers(1, 12), st.tuples(BYTE, BYTE, BYTE, BYTE))
def test_images_keep_their_colours(case, width, height, values):
    """Images of one colour."""
    ending, mode = case
    red, green, blue, alpha = values
    if mode in ("I;16", "I", "F"):
        types = {"I;16": (np.uint16, 257), "I": (np.int32, 257), "F": (np.float32, 1 / 255)}
        kind, factor = types[mode]
        image = Image.fromarray(np.full((height, width), red * factor, kind))
        expected = [red] * 3
    else:
        image = Image.new("RGBA", (width, height), (red, green, blue, alpha))
        if mode == "P":
            image = image.convert("RGB").quantize(4)
        else:
            image = image.convert(mode, dither=Image.Dither.NONE)
        flat = Image.new("RGBA", (1, 1), "white")
        flat.alpha_composite(image.crop((0, 0, 1, 1)).convert("RGBA"))
        expected = flat.getpixel((0, 0))[:3]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        image.save(path, **({"lossless": True, "exact": True} if ending == "webp" else {}))
        pixels = read_image(path)
        assert pixels.shape == (3, height, width)
        found = (pixels * 255).mean((1, 2)).tolist()
        assert np.abs(np.subtract(found, expected)).max() <= 1.01


@given(st.lists(st.integers(1, 900), min_size=1, max_size=8), st.lists(st.integers(0, 3000), min_size=1, max_size=4))
def test_frames_are_those_that_a_player_shows(steps, starts):
    """Frames at any milliseconds, read at any others."""
    moments = np.cumsum([0, *steps])
    with tempfile.TemporaryDirectory() as folder:
        frames = [(moment / 1000, grey(k / len(moments), (16, 16))) for k, moment in enumerate(moments)]
        path = write_film(Path(folder) / "a.mkv", frames, video="ffv1")
        for start in (start for start in starts if start <= moments[-1]):
            shown = [np.searchsorted(moments, start + 250 * k, side="right") - 1 for k in range(3)]
            found = levels(read_video(path, 3, 4.0, start=start / 1000))
            assert found == pytest.approx([k / len(moments) for k in shown], abs=0.02)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(30, 300)), min_size=1, max_size=5), st.integers(0, 800))
def test_samples_lie_at_their_time_stamps(pieces, start):
    """Pieces of some milliseconds after pauses of others; a pause of less than 20 ms may be jitter."""
    at, blocks, expected = 0, [], np.zeros(0, np.float32)
    for k, (pause, length) in enumerate(pieces):
        pause = 0 if k == 0 or pause < 20 else pause
        samples = np.full(16 * length, 0.1 * (k + 1), np.float32)
        blocks.append(((at + pause) / 1000, samples))
        expected = np.concatenate([expected, np.zeros(16 * pause, np.float32), samples])
        at += pause + length
    with tempfile.TemporaryDirectory() as folder:
        path = write_film(Path(folder) / "a.mkv", tracks=[blocks])
        whole, _ = read_audio(path)
        np.testing.assert_allclose(whole[0], expected, atol=1e-3)
        if start < at:
            part, _ = read_audio(path, start=start / 1000, seconds=0.1)
            np.testing.assert_allclose(part[0], expected[16 * start : 16 * (start + 100)], atol=1e-3)


@given(
    st.integers(1, 8),
    st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000, 12345]),
    st.sampled_from(
        [(1, 8, np.uint8, 127), (1, 16, np.int16, 32767), (1, 32, np.int32, 2147483000), (3, 32, np.float32, 1)]
    ),
    st.integers(200, 3000),
    st.integers(100, 400),
)
def test_audio_keeps_its_length_and_pitch(channels, rate, form, frequency, milliseconds):
    code, bits, kind, scale = form
    wave = np.repeat(tone(milliseconds / 1000, rate, frequency)[:, None], channels, 1).astype(np.float64)
    data = (wave * scale + (128 if bits == 8 else 0)).astype(kind).tobytes()
    with tempfile.TemporaryDirectory() as folder:
        samples, found = read_audio(write_wav(Path(folder) / "a.wav", code, bits, data, rate, channels))
    assert found == (48000 if rate == 12345 else rate)
    assert samples.shape[1] / found == pytest.approx(len(wave) / rate, abs=2e-3)
    assert pitch(samples, found) == pytest.approx(frequency, abs=1000 / milliseconds + 1)
    assert samples.square().mean() == pytest.approx(0.125, rel=0.1)


# --- damage


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small file of each format, as bytes by its ending."""
    folder = tmp_path_factory.mktemp("files")
    noise = np.random.default_rng(0).integers(0, 255, (4, 20, 24, 3), np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending in ("jpg", "tiff", "bmp", "tga", "jp2", "ico"):
        images[0].save(folder / f"a.{ending}", **({"exif": exif} if ending == "jpg" else {}))
    for ending in ("png", "gif", "webp", "avif"):
        images[0].save(folder / f"a.{ending}", save_all=True, append_images=images[1:], duration=100)
    for ending, audio, rate in (("mp4", "aac", 16000), ("mkv", "pcm_s16le", 16000), ("ts", "aac", 48000)):
        write_film(folder / f"a.{ending}", ramp(8), [[(0.0, tone(0.8, rate))]], audio=audio, rate=rate)
    write_film(folder / "a.webm", ramp(4), [[(0.0, tone(0.4, 48000))]], "libvpx-vp9", "libopus", 48000)
    write_film(folder / "a.avi", ramp(8), [[(0.0, tone(0.8))]], "mpeg4")
    for ending, audio in (("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("aac", "aac")):
        write_film(folder / f"a.{ending}", tracks=[[(0.0, tone(0.3))]], audio=audio)
    write_film(folder / "a.ogg", tracks=[[(0.0, tone(0.3, 48000))]], audio="libopus", rate=48000)
    return {path.suffix[1:]: path.read_bytes() for path in folder.iterdir()}


READERS = {
    "image": read_image,
    "audio": lambda path: read_audio(path)[0],
    "part": lambda path: read_audio(path, start=0.1, seconds=0.1)[0],
    "video": lambda path: read_video(path, 3),
    "held": lambda path: read_video(path, 3, 4.0, start=0.2),
    "probe": probe,
}
ENDINGS = "jpg tiff bmp tga jp2 ico png gif webp avif mp4 mkv ts webm avi wav flac mp3 aac ogg".split()


@given(
    st.sampled_from(ENDINGS),
    st.sampled_from(sorted(READERS)),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), BYTE), max_size=6),
)
def test_damaged_files_are_read_or_refused(files, ending, reader, kept, changes):
    """Cut off, and with bytes changed anywhere or at the beginning."""
    data = bytearray(files[ending])
    for place, early, value in changes:
        data[int(place * ((min(400, len(data)) if early else len(data)) - 1))] = value
    data = data[: 1 + int(kept * (len(data) - 1))] if kept < 0.7 else data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        path.write_bytes(data)
        try:
            result = READERS[reader](path)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error) and str(error).endswith((".", "first."))
            assert not isinstance(error, (av.FFmpegError, UnicodeError))
        else:
            assert reader == "probe" or (result.isfinite().all() and result.numel() > 0)
